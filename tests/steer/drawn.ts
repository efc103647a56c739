/**
 * Tokens drawn from logits of the test, with what they were drawn by.
 * @module
 */
import { samplingSettings } from "../../steer/sampling.ts";
import { TokenDraw } from "../../steer/token_draw.ts";
import { poison, randomNormal } from "../assert_close.ts";
import { testGpu } from "../gpu_for_tests.ts";
import type { RowSettings } from "../reference/sampling_reference.ts";

/** What a row without a distribution gives. */
export const NO_TOKEN = 0xffffffff;

/** Plain softmax. */
export const all: RowSettings = {
  temperature: 1,
  top_p: 1,
  min_p: 0,
  top_k: 0,
  seed: 0,
  step: 0,
};

/** Settings as the kernels take them. */
export function packed(
  rows: readonly RowSettings[],
): DataView<ArrayBuffer> {
  return samplingSettings(
    rows.map(({ temperature, top_p, min_p, top_k, seed }) => ({
      temperature,
      topP: top_p,
      minP: min_p,
      topK: top_k,
      seed,
    })),
    rows.map(({ step }) => step),
  );
}

/** Draws from rows of logits, each with settings of its own, in memory that other draws have used before. */
export async function drawn(
  logits: Float32Array<ArrayBuffer>,
  rows: readonly RowSettings[],
): Promise<{ probs: Float32Array[]; tokens: Uint32Array }> {
  const gpu = await testGpu();
  const R = rows.length;
  const vocab = logits.length / R;
  using draw = new TokenDraw(gpu, vocab, R);
  using settings = gpu.tensor("settings", "u32", [R, 8]);
  using values = gpu.floats("logits", [R, vocab], randomNormal(R * vocab, 5));
  using probs = gpu.floats("probs", [R, vocab], poison(R * vocab));
  using tokens = gpu.upload("tokens", "u32", [R], new Uint32Array(R).fill(7));
  const used = { ...all, top_p: 0.9, top_k: R % 2 === 0 ? 0 : 5 };
  settings.write(packed(rows.map(() => used)));
  gpu.record("before", (rec) => {
    draw.run(rec, { logits: values, settings }, tokens, true);
  });
  const isFiltered = rows.some(({ top_p, min_p, top_k }) =>
    top_p < 1 || min_p > 0 || top_k > 0
  );
  values.write(logits);
  settings.write(packed(rows));
  gpu.record("draw", (rec) => {
    draw.run(rec, { logits: values, settings }, tokens, isFiltered);
    draw.probs(rec, { logits: values, settings }, probs);
  });
  const all_probs = await gpu.read(probs);
  return {
    probs: rows.map((_, r) => all_probs.subarray(r * vocab, (r + 1) * vocab)),
    tokens: await gpu.readInts(tokens),
  };
}
