import { equal, ok, rejects } from "node:assert/strict";
import { directory } from "../../core/files.ts";
import {
  type ModelFolder,
  openModelFolder,
  startTokenId,
} from "../../core/model_folder.ts";
import { Olmo2 } from "../../core/olmo2.ts";
import { Sae, type SaeRows } from "../../core/sae.ts";
import { storybook } from "../../core/storybook.ts";
import type { Gpu } from "../../gpu/mod.ts";
import { lossRecovered } from "../../train/loss_recovered.ts";
import { assertClose } from "../assert_close.ts";
import { testGpu } from "../gpu_for_tests.ts";
import { rejectsInOneLine } from "../rejects_in_one_line.ts";

const D = 192;
const MEAN = Float32Array.from({ length: D }, (_, j) => Math.sin(j));

/** An SAE from rules for its weights; what is left out is 0. */
function saeOf(
  gpu: Gpu,
  d_sae: number,
  rules: {
    readonly enc?: (i: number, j: number) => number;
    readonly dec?: (i: number, j: number) => number;
    readonly b_dec?: Float32Array<ArrayBuffer>;
    /** Makes it a topk. */
    readonly k?: number;
  },
): Promise<Sae> {
  const rows = (rule?: (i: number, j: number) => number) =>
  (
    start: number,
    end: number,
  ): Promise<Float32Array<ArrayBuffer>> =>
    Promise.resolve(
      Float32Array.from(
        { length: (end - start) * D },
        (_, at) => rule?.(start + Math.floor(at / D), at % D) ?? 0,
      ),
    );
  const weights: SaeRows = {
    d_model: D,
    d_sae,
    ...(rules.k && { architecture: "topk", k: rules.k }),
    rowsOfEncoder: rows(rules.enc),
    rowsOfDecoder: rows(rules.dec),
    b_enc: () => Promise.resolve(new Float32Array(d_sae)),
    b_dec: () => Promise.resolve(rules.b_dec ?? new Float32Array(D)),
  };
  return Sae.load(gpu, weights);
}

/** relu(x) − relu(−x) = x: features i and i + D are the two signs of dimension i. */
const IDENTITY = (i: number, j: number): number =>
  i % D === j ? i < D ? 1 : -1 : 0;

function sequencesOf(model: ModelFolder, n: number): number[][] {
  const documents = storybook(5);
  return Array.from({ length: n }, () => {
    const { text } = documents.next().value;
    const { ids } = model.tokenizer.encodeWithOffsets(text);
    return [startTokenId(model), ...ids].slice(0, 40);
  });
}

async function setUp(): Promise<{ model: Olmo2; sequences: number[][] }> {
  const folder = await openModelFolder(
    directory(new URL("../../models/tiny-olmo2", import.meta.url).pathname),
  );
  const { checkpoint, config } = folder;
  const model = await Olmo2.load(await testGpu(), checkpoint, config);
  return { model, sequences: sequencesOf(folder, 5) };
}

const hookPoint = "resid_post[3]";

Deno.test("lossRecovered() is 1 for an SAE that gives back what it gets", async () => {
  const { model, sequences } = await setUp();
  using _ = model;
  using sae = await saeOf(model.gpu, 2 * D, { enc: IDENTITY, dec: IDENTITY });
  const shares: number[] = [];
  const loss = await lossRecovered({
    model,
    sae,
    hookPoint,
    sequences,
    mean: MEAN,
    tokensPerPass: 64,
    onProgress: (share) => shares.push(share),
  });
  equal(loss.nTokens, sequences.reduce((n, ids) => n + ids.length - 1, 0));
  // The embedded model's held-out loss is 0.86; these are the starts of documents.
  ok(loss.ceModel > 0.5 && loss.ceModel < 2, `${loss.ceModel}`);
  ok(loss.ceZero > 3 && loss.ceMean > 3);
  assertClose([loss.ceSae], [loss.ceModel], { rtol: 1e-6, label: "CE" });
  assertClose([loss.recoveredFromZero, loss.recoveredFromMean], [1, 1], {
    atol: 1e-6,
    label: "recovered",
  });
  equal(shares.at(-1), 1);
  ok(shares.every((share, i) => i === 0 || share > shares[i - 1]!));
});

Deno.test("lossRecovered() is 1 for topk where k leaves nothing out, and less where it does", async () => {
  const { model, sequences } = await setUp();
  using _ = model;
  const recovered = async (k: number): Promise<number> => {
    using sae = await saeOf(model.gpu, 2 * D, {
      enc: IDENTITY,
      dec: IDENTITY,
      k,
    });
    const options = { model, sae, hookPoint, sequences, mean: MEAN } as const;
    return (await lossRecovered(options)).recoveredFromZero;
  };
  assertClose([await recovered(D)], [1], { atol: 1e-6, label: "recovered" });
  const few = await recovered(8);
  ok(few > 0.05 && few < 0.95, `${few}`);
});

Deno.test("lossRecovered() is 0 for an SAE that gives what ablation gives", async () => {
  const { model, sequences } = await setUp();
  using _ = model;
  const options = { model, hookPoint, sequences, mean: MEAN } as const;
  using zero = await saeOf(model.gpu, 8, {});
  const fromZero = await lossRecovered({ ...options, sae: zero });
  equal(fromZero.ceSae, fromZero.ceZero);
  equal(fromZero.recoveredFromZero, 0);
  using mean = await saeOf(model.gpu, 8, { b_dec: MEAN });
  const fromMean = await lossRecovered({ ...options, sae: mean });
  equal(fromMean.ceSae, fromMean.ceMean);
  equal(fromMean.recoveredFromMean, 0);
  ok(fromMean.ceMean !== fromZero.ceZero);
});

Deno.test("lossRecovered() leaves the stream of the first token alone", async () => {
  const { model, sequences } = await setUp();
  using _ = model;
  using sae = await saeOf(model.gpu, 8, {});
  // Of two tokens, only the first one's stream predicts anything.
  const pairs = sequences.map((ids) => ids.slice(0, 2));
  const loss = await lossRecovered({
    model,
    sae,
    hookPoint,
    sequences: pairs,
    mean: MEAN,
  });
  equal(loss.nTokens, pairs.length);
  equal(loss.ceZero, loss.ceModel);
  equal(loss.ceSae, loss.ceModel);
});

Deno.test("lossRecovered() refuses what cannot be spliced or scored", async () => {
  const { model, sequences } = await setUp();
  using _ = model;
  using sae = await saeOf(model.gpu, 8, {});
  const options = { model, sae, hookPoint, sequences, mean: MEAN } as const;
  const cases = [
    [{ hookPoint: "final_norm@3" }, /resid_post\[0\] to .*: got final_norm@3$/],
    [
      { hookPoint: "resid_post[8]" },
      /resid_post\[7\],.*: got resid_post\[8\]$/,
    ],
    [{ mean: [1, 2] }, /expected vectors of 192: got 2$/],
    [{ sequences: [[0, 5], [0]] }, /at least 2 tokens: got 1$/],
    [{ sequences: [] }, /at least 2 tokens: got none$/],
    [
      { mean: MEAN.map(() => NaN) },
      /finite cross-entropy: got NaN with the mean$/,
    ],
  ] as const;
  for (const [change, message] of cases) {
    await rejectsInOneLine(
      () => lossRecovered({ ...options, ...change }),
      new RegExp(
        `^RangeError: Cannot measure the loss recovered.*${message.source}`,
      ),
    );
  }
  const signal = AbortSignal.abort(new Error("stop"));
  await rejects(() => lossRecovered({ ...options, signal }), /stop/);
});
