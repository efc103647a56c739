import assert from "node:assert/strict";
import { SaeFile } from "../../core/sae_file.ts";
import { type Folder, memoryFolder } from "../../core/source.ts";
import { rejectsInOneLine } from "../rejects_in_one_line.ts";
import {
  assertSame,
  type Encoded,
  gated,
  json,
  jumpRelu,
  linear,
  norms,
  type RawWeights,
  rawWeights,
  reference,
  relu,
  safetensorsOf,
  topK,
} from "./sae_references.ts";

const K = 3; // of all files with the k largest
const THRESHOLD = 0.8; // of all files with one threshold

/** A folder of SAELens. */
async function saeLens(
  raw: RawWeights,
  config: Record<string, unknown>,
  tensors: Record<string, Float32Array>,
  files: Record<string, Uint8Array> = {},
): Promise<Folder> {
  const { d_model, d_sae, W_enc, W_dec, b_dec } = raw;
  return memoryFolder("saelens", {
    "cfg.json": json({ d_in: d_model, d_sae, ...config }),
    "sae_weights.safetensors": await safetensorsOf(
      { W_enc, W_dec, b_dec, ...tensors },
      raw,
      ["W_enc"],
    ),
    ...files,
  });
}

const V6 = {
  metadata: {
    sae_lens_version: "6.18.0",
    hook_name: "blocks.7.hook_resid_post",
  },
  normalize_activations: "none",
  reshape_activations: "none",
};

Deno.test("SaeFile gives the features of every architecture of SAELens", async () => {
  const raw = await rawWeights();
  const { b_enc, b_dec, threshold, r_mag, b_gate } = raw;
  const factor = norms(raw);
  const constant = new Float32Array(raw.d_sae).fill(THRESHOLD);
  const centers = { true: b_dec, false: new Float32Array(raw.d_model) };
  for (const [applied, center] of Object.entries(centers)) {
    const pre = linear(raw, { bias: b_enc, center });
    const rescaled = linear(raw, { bias: b_enc, center, factor });
    const u = linear(raw, { center });
    const cases: [
      Record<string, unknown>,
      Record<string, Float32Array>,
      Encoded,
    ][] = [
      [
        { architecture: "standard" },
        { b_enc },
        reference(raw, (x) => relu(pre(x))),
      ],
      [
        { architecture: "topk", k: K },
        { b_enc },
        reference(raw, (x) => topK(pre(x), K)),
      ],
      [
        { architecture: "topk", k: K, rescale_acts_by_decoder_norm: true },
        { b_enc },
        reference(raw, (x) => topK(rescaled(x), K), { factor }),
      ],
      [
        // SAELens asks for the norms only where it ranks by them.
        { architecture: "jumprelu", rescale_acts_by_decoder_norm: true },
        { b_enc, threshold },
        reference(raw, (x) => jumpRelu(pre(x), threshold)),
      ],
      [
        { architecture: "gated" },
        { b_mag: b_enc, r_mag, b_gate },
        reference(raw, (x) => gated(raw, u(x))),
      ],
      [
        {
          architecture: "batchtopk",
          k: 2.5,
          rescale_acts_by_decoder_norm: true,
        },
        { b_enc, topk_threshold: Float32Array.of(THRESHOLD) },
        reference(raw, (x) => jumpRelu(rescaled(x), constant), { factor }),
      ],
    ];
    for (const [config, tensors, want] of cases) {
      const settings = { ...config, apply_b_dec_to_input: applied === "true" };
      const sae = await SaeFile.open(
        await saeLens(raw, { ...V6, ...settings }, tensors),
      );
      await assertSame(sae, raw, want, JSON.stringify(settings));
      assert.equal(sae.metadata.hookPoint, "resid_post[7]");
    }
  }
});

Deno.test("SaeFile folds the input scale of a SAELens checkpoint, and refuses to guess it", async () => {
  const raw = await rawWeights();
  const { b_enc, b_dec } = raw;
  const scale = 0.37;
  const config = {
    ...V6,
    architecture: "standard",
    normalize_activations: "expected_average_only_in",
  };
  const pre = linear(raw, { bias: b_enc, center: b_dec });
  const sae = await SaeFile.open(
    await saeLens(raw, config, { b_enc }, {
      "activation_scaler.json": json({ scaling_factor: scale }),
    }),
  );
  const want = reference(raw, (x) => relu(pre(x)), { scale });
  await assertSame(sae, raw, want, "scaled");
  assert.equal(sae.metadata.inputScale, scale);
  const unknown = await saeLens(raw, config, { b_enc });
  await rejectsInOneLine(
    () => SaeFile.open(unknown),
    /"activation_scaler.json": no such file/,
  );
  const zero = await saeLens(raw, config, { b_enc }, {
    "activation_scaler.json": json({ scaling_factor: 0 }),
  });
  await rejectsInOneLine(
    () => SaeFile.open(zero),
    /activation_scaler.json": field "scaling_factor"/,
  );
});

Deno.test("SaeFile reads configs of SAELens from before version 6 as SAELens migrates them", async () => {
  const raw = await rawWeights();
  const { b_enc, b_dec } = raw;
  const pre = linear(raw, { bias: b_enc, center: b_dec });
  const old = {
    hook_point: "blocks.2.hook_resid_post",
    model_name: "gpt2-small",
    context_size: 64,
    normalize_activations: false,
  };
  // Without a version the input is centered by b_dec.
  const relus = await SaeFile.open(
    await saeLens(raw, { ...old, activation_fn_str: "relu" }, {
      b_enc,
      scaling_factor: new Float32Array(raw.d_sae).fill(1),
    }),
  );
  await assertSame(relus, raw, reference(raw, (x) => relu(pre(x))), "relu");
  assert.deepEqual(relus.metadata, {
    architecture: "relu",
    inputScale: 1,
    hookPoint: "resid_post[2]",
    modelName: "gpt2-small",
    contextLength: 64,
  });
  for (const how of [{ activation_fn_str: "topk" }, { architecture: "topk" }]) {
    const topk = await SaeFile.open(
      await saeLens(raw, {
        ...old,
        ...how,
        activation_fn_kwargs: { k: K },
        sae_lens_version: "5.3.0",
      }, { b_enc }),
    );
    await assertSame(topk, raw, reference(raw, (x) => topK(pre(x), K)), "topk");
  }
  const refused: [Record<string, unknown>, RegExp][] = [
    [{ normalize_activations: true }, /activation_scaler.json/],
    [
      { normalize_activations: "layer_norm" },
      /normalize_activations": expected none or expected_average_only_in, as the others scale every vector/,
    ],
    [{ activation_fn_str: "tanh-relu" }, /field "activation_fn_str"/],
    [{ hook_point: "blocks.1.attn.hook_z" }, /field "reshape_activations"/],
  ];
  for (const [change, pattern] of refused) {
    const folder = await saeLens(raw, { ...old, ...change }, { b_enc });
    await rejectsInOneLine(() => SaeFile.open(folder), pattern);
  }
  const tuned = await saeLens(raw, old, {
    b_enc,
    scaling_factor: new Float32Array(raw.d_sae).fill(1.5),
  });
  await rejectsInOneLine(
    () => SaeFile.open(tuned),
    /expected a scaling_factor of ones: got 1.5/,
  );
});

Deno.test("SaeFile gives the features of sparsify, and refuses what is no SAE of it", async () => {
  const raw = await rawWeights();
  const { d_model, d_sae, W_enc, W_dec, b_enc, b_dec, x } = raw;
  const config = {
    activation: "topk",
    expansion_factor: 32,
    normalize_decoder: true,
    num_latents: d_sae,
    k: K,
    multi_topk: false,
    skip_connection: false,
    transcode: false,
    d_in: d_model,
  };
  const bytes = await safetensorsOf({
    "encoder.weight": W_enc,
    "encoder.bias": b_enc,
    W_dec,
    b_dec,
  }, raw);
  const open = (change: Record<string, unknown>, folder = "run/layers.10") =>
    SaeFile.open(memoryFolder(folder, {
      "cfg.json": json({ ...config, ...change }),
      "sae.safetensors": bytes,
    }));
  const pre = linear(raw, { bias: b_enc, center: b_dec });
  const want = reference(raw, (x) => topK(pre(x), K));
  const sae = await open({});
  assert.equal(sae.layout, "sparsify");
  assert.equal(sae.metadata.hookPoint, "resid_post[10]");
  await assertSame(sae, raw, want, "sparsify");
  assert.equal(x.length % d_model, 0);
  const elsewhere = await open({}, "layers.10.mlp");
  assert.equal(elsewhere.metadata.hookPoint, undefined);
  assert.equal(elsewhere.elsewhere, "layers.10.mlp");
  assert.equal((await open({}, "run/v1.2.b")).elsewhere, undefined);
  const refused: [Record<string, unknown>, RegExp][] = [
    [{ transcode: true }, /"transcode": expected false, as a transcoder/],
    [{ skip_connection: true }, /"skip_connection": expected false/],
    [{ signed: true }, /"signed": expected false/],
    [{ activation: "groupmax" }, /"activation": expected topk, as the feat/],
    [{ k: 11 }, /"num_latents"/],
    [{ num_latents: 0 }, /^TypeError: .*"encoder.weight".*\[192, 6\]/],
  ];
  for (const [change, pattern] of refused) {
    await rejectsInOneLine(() => open(change), pattern);
  }
});

Deno.test("SaeFile names file and feature when folded weights are not finite", async () => {
  const raw = await rawWeights();
  const { b_enc } = raw;
  const [r_mag, b_gate] = [raw.r_mag.slice(), raw.b_gate.slice()];
  [r_mag[4], b_gate[4]] = [1000, -1];
  const sae = await SaeFile.open(
    await saeLens(raw, { ...V6, architecture: "gated" }, {
      b_mag: b_enc,
      r_mag,
      b_gate,
    }),
  );
  await rejectsInOneLine(
    () => sae.rowsOfEncoder(3, 6),
    /^RangeError: .*"W_enc" of "saelens.*once all is folded: got -?Infinity for feature 4/,
  );
  await rejectsInOneLine(
    () => sae.b_enc(),
    /^RangeError: .*"W_enc" of "saelens.*feature 4/,
  );
  await rejectsInOneLine(
    () => sae.threshold(),
    /^RangeError: .*"saelens": expected finite values of threshold.*at \[4\]/,
  );
});
