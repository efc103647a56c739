import assert from "node:assert/strict";
import { Olmo2 } from "../../core/olmo2.ts";
import { type LogitLens, logitLens } from "../../steer/logit_lens.ts";
import { assertClose } from "../assert_close.ts";
import { testGpu } from "../gpu_for_tests.ts";
import { rejectsInOneLine } from "../rejects_in_one_line.ts";
import { openTinyModel, openTinySae } from "./embedded.ts";

/** W_U · (w ∘ W_dec[i]) in float64. */
async function reference(feature: number): Promise<Float64Array> {
  const { checkpoint, config: { d_model, vocab_size, tied_embeddings } } =
    await openTinyModel();
  const sae = await openTinySae();
  const head = tied_embeddings ? "model.embed_tokens.weight" : "lm_head.weight";
  const W_U = await checkpoint.floats(head);
  const norm = await checkpoint.floats("model.norm.weight");
  const row = await sae.rowsOfDecoder(feature, feature + 1);
  return Float64Array.from({ length: vocab_size }, (_, id) => {
    let sum = 0;
    for (let j = 0; j < d_model; j++) {
      sum += W_U[id * d_model + j]! * norm[j]! * row[j]!;
    }
    return sum;
  });
}

Deno.test("logitLens() gives the tokens of the largest and smallest logits, and their histogram", async () => {
  const gpu = await testGpu();
  const folder = await openTinyModel();
  const sae = await openTinySae();
  // Neither blocks nor their memory are needed.
  using model = await Olmo2.load(gpu, folder.checkpoint, folder.config, {
    nLayers: 0,
  });
  const lenses: LogitLens[] = await Array.fromAsync(logitLens(model, {
    d_sae: 40,
    rowsOfDecoder: (start, end) => sae.rowsOfDecoder(start, end),
    finalNorm: await folder.checkpoint.floats("model.norm.weight"),
    nVocab: folder.tokenizer.vocabSize,
    nTokens: 5,
  }));
  assert.deepEqual(lenses.map(({ feature }) => feature), [...Array(40).keys()]);
  for (const feature of [0, 39]) {
    const logits = (await reference(feature))
      .subarray(0, folder.tokenizer.vocabSize);
    const { top, bottom, histogram } = lenses[feature]!;
    const sorted = logits.toSorted();
    const values = (tokens: typeof top) =>
      Float32Array.from(tokens, ({ logit }) => logit);
    // Sums of 256 products of a unit vector's: f32 keeps 1e-5 of the largest.
    const options = { atol: 1e-5 * sorted.at(-1)!, label: "logits" };
    assertClose(values(top), sorted.slice(-5).reverse(), options);
    assertClose(values(bottom), sorted.slice(0, 5), options);
    const claimed = [...top, ...bottom].map(({ id }) => logits[id]!);
    assertClose(values([...top, ...bottom]), claimed, options);
    const { heights, values: middles } = histogram;
    assert.equal(heights.length, 40);
    assert.equal(heights.reduce((sum, n) => sum + n, 0), logits.length);
    const half = (middles[1]! - middles[0]!) / 2;
    assertClose([middles[0]! - half, middles[39]! + half], [
      sorted[0]!,
      sorted.at(-1)!,
    ], options);
  }
});

Deno.test("logitLens() refuses logits that are not finite, naming the feature", async () => {
  const gpu = await testGpu();
  const { checkpoint, config, tokenizer } = await openTinyModel();
  using model = await Olmo2.load(gpu, checkpoint, config, { nLayers: 0 });
  const { d_model } = config;
  const rowsOfDecoder = (start: number, end: number) => {
    const rows = new Float32Array((end - start) * d_model).fill(1);
    rows[2 * d_model + 5] = 3e38;
    rows[2 * d_model + 6] = 3e38;
    return Promise.resolve(rows);
  };
  const finalNorm = new Float32Array(d_model).fill(1e30);
  await rejectsInOneLine(
    () =>
      Array.fromAsync(logitLens(model, {
        d_sae: 3,
        rowsOfDecoder,
        finalNorm: finalNorm.fill(1, 0, 5).fill(1, 7),
        nVocab: tokenizer.vocabSize,
      })),
    /^RangeError: Cannot read feature 2 by the head: expected finite logits/,
  );
});
