import assert from "node:assert/strict";
import { Rng } from "../../core/rng.ts";
import {
  BenchSums,
  featureDetails,
  type FeatureMeasures,
  miscMetrics,
} from "../../train/sae_bench.ts";
import type { SpliceResult } from "../../train/splice_pass.ts";
import { assertClose } from "../assert_close.ts";

const D = 3;

/** A result of drawn numbers; a first token's are absurd, since none of them may count. */
function drawn(rng: Rng, lengths: readonly number[]): SpliceResult {
  const firsts = new Set<number>();
  let T = 0;
  for (const length of lengths) {
    firsts.add(T);
    T += length;
  }
  const rows = (width: number) =>
    Float32Array.from(
      { length: T * width },
      (_, at) =>
        firsts.has(Math.floor(at / width)) ? 1e6 : Math.abs(rng.normal()) + 0.1,
    );
  return {
    nll: { model: rows(1), sae: rows(1), zero: rows(1) },
    kl: { sae: rows(1), zero: rows(1) },
    x: rows(D),
    xHat: rows(D),
  };
}

const mean = (values: readonly number[]): number =>
  values.reduce((sum, value) => sum + value, 0) / values.length;
const dot = (a: readonly number[], b: readonly number[]): number =>
  a.reduce((sum, value, j) => sum + value * b[j]!, 0);

Deno.test("BenchSums gives each measure by its formula, over all tokens but the first of each document", () => {
  const rng = new Rng(5);
  const batches = [[4, 3], [5]].map((lengths) => ({
    lengths,
    result: drawn(rng, lengths),
  }));
  const sums = new BenchSums(D);
  for (const { lengths, result } of batches) sums.add(lengths, result);
  const { metrics, own } = sums.finish();

  // Tokens of each batch: [x, xHat], kl and, but for the last of a document, nll.
  const kept = batches.map(({ lengths, result }) => {
    let first = 0;
    return lengths.flatMap((length) => {
      const from = first;
      first += length;
      return Array.from({ length: length - 1 }, (_, i) => {
        const t = from + 1 + i;
        const at = (a: Float32Array) => [...a.subarray(t * D, t * D + D)];
        const hasNext = i < length - 2;
        return { t, x: at(result.x), y: at(result.xHat), hasNext, result };
      });
    });
  });
  const all = kept.flat();
  const error = ({ x, y }: { x: number[]; y: number[] }): number =>
    x.reduce((sum, value, j) => sum + (value - y[j]!) ** 2, 0);
  const norm = (v: readonly number[]): number => Math.sqrt(dot(v, v));
  const columnMeans = (tokens: typeof all): number[] =>
    Array.from({ length: D }, (_, j) => mean(tokens.map(({ x }) => x[j]!)));
  const varianceOf = (x: readonly number[], means: readonly number[]): number =>
    x.reduce((sum, value, j) => sum + (value - means[j]!) ** 2, 0);
  const squares = mean(
    kept.map((tokens) => mean(tokens.map(({ x }) => dot(x, x)))),
  );
  const predicted = all.filter(({ hasNext }) => hasNext);
  const ce = (kind: "model" | "sae" | "zero") =>
    mean(predicted.map(({ t, result }) => result.nll[kind][t]!));
  const kl = (kind: "sae" | "zero") =>
    mean(all.map(({ t, result }) => result.kl[kind][t]!));
  const want = {
    kl_div_score: (kl("zero") - kl("sae")) / kl("zero"),
    kl_div_with_ablation: kl("zero"),
    kl_div_with_sae: kl("sae"),
    ce_loss_score: (ce("zero") - ce("sae")) / (ce("zero") - ce("model")),
    ce_loss_with_ablation: ce("zero"),
    ce_loss_with_sae: ce("sae"),
    ce_loss_without_sae: ce("model"),
    explained_variance: 1 -
      mean(kept.map((tokens) => mean(tokens.map(error)))) /
        (squares - (squares / D) ** 2),
    explained_variance_legacy: mean(kept.flatMap((tokens) => {
      const means = columnMeans(tokens);
      return tokens.map((token) =>
        1 - error(token) / varianceOf(token.x, means)
      );
    })),
    mse: mean(
      kept.flatMap((tokens) =>
        tokens.map((token) => error(token) / tokens.length)
      ),
    ),
    cossim: mean(all.map(({ x, y }) => dot(x, y) / (norm(x) * norm(y)))),
    l2_norm_in: mean(all.map(({ x }) => norm(x))),
    l2_norm_out: mean(all.map(({ y }) => norm(y))),
    l2_ratio: mean(all.map(({ x, y }) => norm(y) / norm(x))),
    relative_reconstruction_bias: mean(
      kept.map((tokens) =>
        mean(tokens.map(({ y }) => dot(y, y))) /
        mean(tokens.map(({ x, y }) => dot(x, y)))
      ),
    ),
    total_tokens_eval_reconstruction: 9,
    total_tokens_eval_sparsity_variance: 9,
  };
  const got = Object.assign({}, ...Object.values(metrics));
  assert.deepEqual(Object.keys(got), Object.keys(want));
  // The same sums in another order, in float64.
  const options = { atol: 1e-9, rtol: 1e-9, label: "measures" };
  assertClose(Object.values<number>(got), Object.values(want), options);
  const means = columnMeans(all);
  const fvu = all.reduce((sum, token) => sum + error(token), 0) /
    all.reduce((sum, { x }) => sum + varianceOf(x, means), 0);
  assertClose(
    Object.values(own),
    [fvu, 1 - fvu, mean(all.map(error))],
    options,
  );
});

Deno.test("miscMetrics() and featureDetails() count what fires, and write -1 for what is not defined", () => {
  const features: FeatureMeasures = {
    density: Float64Array.of(0, 0.005, 0.05, 0.5),
    tokensPerDocument: Float64Array.of(NaN, 1, 2, 3.00000000004),
    b_enc: Float32Array.of(0, 1, 2, 3),
    encoderNorm: Float64Array.of(0, 1, 1, 1),
    encoderDecoderCosine: Float64Array.of(NaN, 0.5, 0.5, 1),
    maxDecoderCosine: Float32Array.of(0, 0.25, 0.5, 0.25),
    maxEncoderCosine: Float32Array.of(0, 0.5, 1, 0.5),
  };
  const misc = miscMetrics(features);
  assertClose(Object.values(misc), [
    ...[0.5, 0.25, 0.55 / 0.555, 0.5 / 0.555],
    ...[0.5, 0.25, 0.75],
  ], { atol: 1e-12, label: "misc" });
  const details = featureDetails(features);
  assert.deepEqual(details[0], {
    index: 0,
    feature_density: 0,
    consistent_activation_heuristic: -1,
    encoder_bias: 0,
    encoder_norm: 0,
    encoder_decoder_cosine_sim: -1,
    max_decoder_cosine_sim: 0,
    max_encoder_cosine_sim: 0,
  });
  assert.equal(details[3]!["consistent_activation_heuristic"], 3);
  const dead = { ...features, density: new Float64Array(4) };
  assert.equal(miscMetrics(dead)["normalized_freq_over_1_percent"], 0);
});
