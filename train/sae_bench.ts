/**
 * The measures of SAEBench's `core` evaluation, by its formulas, so that results stand beside published ones.
 * Source: SAEBench, `evals/core/main.py` and `evals/core/eval_output.py`.
 * @module
 */
import type { SpliceResult } from "./splice_pass.ts";

/** What is known of one feature; a measure that is not defined is NaN. */
export interface FeatureMeasures {
  /** Share of tokens on which it fires. */
  readonly density: Float64Array;
  /** Tokens on which it fires, mean of the documents on which it fires at all. */
  readonly tokensPerDocument: Float64Array;
  /** Encoder biases. */
  readonly b_enc: Float32Array;
  /** Norms of encoder directions. */
  readonly encoderNorm: Float64Array;
  /** Cosines of encoder and decoder directions. */
  readonly encoderDecoderCosine: Float64Array;
  /** Largest cosine with another feature's decoder direction. */
  readonly maxDecoderCosine: Float32Array;
  /** Largest cosine with another feature's encoder direction. */
  readonly maxEncoderCosine: Float32Array;
}

/** Sums over the tokens of all batches, but for each document's first token, which is the start token. */
export class BenchSums {
  readonly #d_model: number;
  #nBatches = 0;
  /** Sums over tokens; divided by their number they are means. */
  readonly #sums = {
    ...{ l2_norm_in: 0, l2_norm_out: 0, l2_ratio: 0, cossim: 0, mse: 0 },
    ...{ explained_variance_legacy: 0, squaredError: 0, squares: 0 },
    ...{ kl_sae: 0, kl_zero: 0 },
  };
  /** Sums over batches. */
  readonly #ofBatches = { bias: 0, squares: 0, squaredError: 0 };
  readonly #ce = { model: 0, sae: 0, zero: 0, n: 0 };
  readonly #total: Float64Array; // of x, per dimension
  #nTokens = 0;

  /** For vectors of `d_model` values. */
  constructor(d_model: number) {
    this.#d_model = d_model;
    this.#total = new Float64Array(d_model);
  }

  /** Tokens that are measured. */
  get nTokens(): number {
    return this.#nTokens;
  }

  /** Adds a batch; SAEBench's mse and legacy variance depend on what is in one. */
  add(lengths: readonly number[], result: SpliceResult): void {
    const kept = keptRows(lengths);
    this.#addVectors(kept, result.x, result.xHat);
    for (const t of kept) {
      this.#sums.kl_sae += result.kl.sae[t]!;
      this.#sums.kl_zero += result.kl.zero[t]!;
    }
    let first = 0;
    for (const length of lengths) {
      for (let t = first + 1; t < first + length - 1; t++) {
        this.#ce.model += result.nll.model[t]!;
        this.#ce.sae += result.nll.sae[t]!;
        this.#ce.zero += result.nll.zero[t]!;
        this.#ce.n++;
      }
      first += length;
    }
  }

  #addVectors(
    kept: readonly number[],
    x: Float32Array,
    xHat: Float32Array,
  ): void {
    const d = this.#d_model;
    const n = kept.length;
    if (n === 0) return;
    const sums = this.#sums;
    const mean = new Float64Array(d);
    for (const t of kept) {
      for (let j = 0; j < d; j++) mean[j]! += x[t * d + j]! / n;
    }
    const batch = { squares: 0, squaredError: 0, out: 0, dot: 0 };
    for (const t of kept) {
      let [squares, out, dot, squaredError, variance] = [0, 0, 0, 0, 0];
      for (let j = 0; j < d; j++) {
        const [a, b] = [x[t * d + j]!, xHat[t * d + j]!];
        squares += a * a;
        out += b * b;
        dot += a * b;
        squaredError += (a - b) ** 2;
        variance += (a - mean[j]!) ** 2;
      }
      const [normIn, normOut] = [Math.sqrt(squares), Math.sqrt(out)];
      sums.l2_norm_in += normIn;
      sums.l2_norm_out += normOut;
      sums.l2_ratio += normOut / (normIn < 1e-4 ? 1 : normIn);
      sums.cossim += dot / (normIn * normOut);
      // The tokens of the batch divide it twice, here and in the mean.
      sums.mse += squaredError / n;
      sums.explained_variance_legacy += 1 - squaredError / variance;
      sums.squaredError += squaredError;
      sums.squares += squares;
      batch.squares += squares / n;
      batch.squaredError += squaredError / n;
      batch.out += out;
      batch.dot += dot;
    }
    for (let j = 0; j < d; j++) this.#total[j]! += mean[j]! * n;
    this.#ofBatches.bias += batch.out / batch.dot;
    this.#ofBatches.squares += batch.squares;
    this.#ofBatches.squaredError += batch.squaredError;
    this.#nTokens += n;
    this.#nBatches++;
  }

  /** `eval_result_metrics` but for sparsity and features, and our own measures of the same vectors. */
  finish(): {
    readonly metrics: Readonly<Record<string, Record<string, number>>>;
    readonly own: Readonly<Record<string, number>>;
  } {
    const [n, d] = [this.#nTokens, this.#d_model];
    const mean = (sum: number): number => sum / n;
    const s = this.#sums;
    const [kl, klZero] = [mean(s.kl_sae), mean(s.kl_zero)];
    const ce = (kind: "model" | "sae" | "zero"): number =>
      this.#ce[kind] / this.#ce.n;
    const squares = this.#ofBatches.squares / this.#nBatches;
    const squaredError = this.#ofBatches.squaredError / this.#nBatches;
    const centered = s.squares -
      this.#total.reduce((sum, total) => sum + total * total, 0) / n;
    return {
      metrics: {
        model_behavior_preservation: {
          kl_div_score: (klZero - kl) / klZero,
          kl_div_with_ablation: klZero,
          kl_div_with_sae: kl,
        },
        model_performance_preservation: {
          ce_loss_score: (ce("zero") - ce("sae")) / (ce("zero") - ce("model")),
          ce_loss_with_ablation: ce("zero"),
          ce_loss_with_sae: ce("sae"),
          ce_loss_without_sae: ce("model"),
        },
        reconstruction_quality: {
          // As it is there: from the mean of the squares, and not of the values.
          explained_variance: 1 - squaredError / (squares - (squares / d) ** 2),
          explained_variance_legacy: mean(s.explained_variance_legacy),
          mse: mean(s.mse),
          cossim: mean(s.cossim),
        },
        shrinkage: {
          l2_norm_in: mean(s.l2_norm_in),
          l2_norm_out: mean(s.l2_norm_out),
          l2_ratio: mean(s.l2_ratio),
          relative_reconstruction_bias: this.#ofBatches.bias / this.#nBatches,
        },
        token_stats: {
          total_tokens_eval_reconstruction: n,
          total_tokens_eval_sparsity_variance: n,
        },
      },
      own: {
        fvu: s.squaredError / centered,
        explained_variance: 1 - s.squaredError / centered,
        mse_sum_per_token: mean(s.squaredError),
      },
    };
  }
}

/** Rows of all tokens but each sequence's first. */
function keptRows(lengths: readonly number[]): number[] {
  const kept: number[] = [];
  let first = 0;
  for (const length of lengths) {
    for (let t = first + 1; t < first + length; t++) kept.push(t);
    first += length;
  }
  return kept;
}

/** `misc_metrics` of features. */
export function miscMetrics(
  features: FeatureMeasures,
): Record<string, number> {
  const { density, maxEncoderCosine, maxDecoderCosine } = features;
  const mean = (values: ArrayLike<number>): number =>
    Array.from(values).reduce((sum, value) => sum + value, 0) / values.length;
  const total = density.reduce((sum, share) => sum + share, 0);
  const over = (least: number): Float64Array =>
    density.filter((share) => share > least);
  const shareOver = (least: number): number =>
    total > 0 ? over(least).reduce((sum, share) => sum + share, 0) / total : 0;
  return {
    freq_over_1_percent: over(0.01).length / density.length,
    freq_over_10_percent: over(0.1).length / density.length,
    normalized_freq_over_1_percent: shareOver(0.01),
    normalized_freq_over_10_percent: shareOver(0.1),
    average_max_encoder_cosine_sim: mean(maxEncoderCosine),
    average_max_decoder_cosine_sim: mean(maxDecoderCosine),
    frac_alive: over(0).length / density.length,
  };
}

/** `eval_result_details`: one row a feature, with what is not defined as -1 and 10 decimals. */
export function featureDetails(
  features: FeatureMeasures,
): Record<string, number>[] {
  const round = (value: number): number => Number(defined(value).toFixed(10));
  return Array.from(features.density, (density, i) => ({
    index: i,
    feature_density: round(density),
    consistent_activation_heuristic: round(features.tokensPerDocument[i]!),
    encoder_bias: round(features.b_enc[i]!),
    encoder_norm: round(features.encoderNorm[i]!),
    encoder_decoder_cosine_sim: round(features.encoderDecoderCosine[i]!),
    max_decoder_cosine_sim: round(features.maxDecoderCosine[i]!),
    max_encoder_cosine_sim: round(features.maxEncoderCosine[i]!),
  }));
}

/** A measure as SAEBench writes it: -1 where it is not defined. */
export function defined(value: number): number {
  return Number.isFinite(value) ? value : -1;
}
