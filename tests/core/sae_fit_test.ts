import { equal } from "node:assert/strict";
import type { HookPoint } from "../../core/hook_point.ts";
import {
  checkResidualsFit,
  checkSaeFits,
  type SaeToFit,
} from "../../core/sae_fit.ts";
import { rejectsInOneLine } from "../rejects_in_one_line.ts";

const MODEL = {
  name: "models/m",
  config: { d_model: 8, n_layers: 4 },
  fingerprint: "aaaa",
};

const RESIDUALS = {
  name: "out/residuals",
  manifest: {
    model: { name: "m", fingerprint: "aaaa", d_model: 8, n_layers: 4 },
    hookPoint: "resid_post[1]" as const,
  },
};

function saeOf(
  changes: {
    d_model?: number;
    hookPoint?: HookPoint | undefined;
    modelFingerprint?: string;
  } = {},
): SaeToFit {
  const { d_model = 8, modelFingerprint = "aaaa" } = changes;
  const hookPoint = "hookPoint" in changes
    ? changes.hookPoint
    : "resid_post[1]" as const;
  return {
    name: "out/sae",
    d_model,
    metadata: {
      architecture: "relu",
      inputScale: 1,
      modelName: "m",
      modelFingerprint,
      ...(hookPoint && { hookPoint }),
    },
  };
}

function refuses(check: () => unknown, message: RegExp): Promise<void> {
  return rejectsInOneLine(() => Promise.resolve().then(check), message);
}

Deno.test("checkSaeFits() gives the hook point of an SAE that fits", () => {
  equal(checkSaeFits(saeOf(), MODEL), "resid_post[1]");
  const { modelFingerprint: _, ...metadata } = saeOf().metadata;
  equal(checkSaeFits({ ...saeOf(), metadata }, MODEL), "resid_post[1]");
});

Deno.test("checkSaeFits() says where an SAE reads that is of no residual stream", async () => {
  await refuses(
    () =>
      checkSaeFits({
        ...saeOf({ hookPoint: undefined }),
        elsewhere: "layers.1.mlp",
      }, MODEL),
    /expected an SAE of the residual stream: got one of layers.1.mlp$/,
  );
});

Deno.test("checkSaeFits() takes an SAE of other weights only when any model will do", async () => {
  const other = saeOf({ modelFingerprint: "bbbb" });
  await refuses(
    () => checkSaeFits(other, MODEL),
    /^RangeError: Cannot use SAE "out\/sae" with model "models\/m": .*\(bbbb\): got aaaa: .*--any-model/,
  );
  equal(checkSaeFits(other, MODEL, { anyModel: true }), "resid_post[1]");
});

Deno.test("checkSaeFits() takes an SAE of a quantized model for the model, and only residuals of either are not mixed", async () => {
  const q8 = saeOf({ modelFingerprint: "aaaa-q8" });
  equal(checkSaeFits(q8, MODEL), "resid_post[1]");
  await refuses(
    () => checkSaeFits(saeOf({ modelFingerprint: "bbbb-q8" }), MODEL),
    /^RangeError: .*\(bbbb-q8\): got aaaa: /,
  );
  await refuses(
    () => checkResidualsFit(q8, RESIDUALS),
    /^RangeError: .*\(aaaa\): got one of aaaa-q8: /,
  );
  const model = { ...RESIDUALS.manifest.model, fingerprint: "aaaa-q8" };
  const residuals = {
    ...RESIDUALS,
    manifest: { ...RESIDUALS.manifest, model },
  };
  checkResidualsFit(q8, residuals);
});

Deno.test("checkSaeFits() refuses other sizes, layers that are not there, and no hook point, whatever the model", async () => {
  const anyModel = { anyModel: true };
  await refuses(
    () => checkSaeFits(saeOf({ d_model: 9 }), MODEL, anyModel),
    /^TypeError: .*expected d_model 8: got 9/,
  );
  await refuses(
    () => checkSaeFits(saeOf({ hookPoint: "final_norm@4" }), MODEL, anyModel),
    /^RangeError: .*layer from 0 to 3: got final_norm@4/,
  );
  await refuses(
    () => checkSaeFits(saeOf({ hookPoint: undefined }), MODEL, anyModel),
    /^Error: .*expected a hook point.*--layer/,
  );
});

Deno.test("checkResidualsFit() refuses vectors of another place, size or model", async () => {
  checkResidualsFit(saeOf(), RESIDUALS);
  checkResidualsFit(saeOf({ hookPoint: undefined }), RESIDUALS);
  const other = saeOf({ modelFingerprint: "bbbb" });
  checkResidualsFit(other, RESIDUALS, { anyModel: true });
  await refuses(
    () => checkResidualsFit(other, RESIDUALS),
    /^RangeError: Cannot use SAE "out\/sae" with residuals "out\/residuals": .*\(aaaa\): got one of bbbb: .*--any-model/,
  );
  await refuses(
    () => checkResidualsFit(saeOf({ d_model: 9 }), RESIDUALS),
    /^TypeError: .*expected d_model 8: got 9/,
  );
  await refuses(
    () =>
      checkResidualsFit(saeOf({ hookPoint: "final_norm@1" }), RESIDUALS, {
        anyModel: true,
      }),
    /^RangeError: .*expected an SAE of resid_post\[1\]: got one of final_norm@1/,
  );
});
