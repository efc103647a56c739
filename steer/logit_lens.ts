/**
 * Which tokens a feature makes likelier: its decoder direction, read by the model's final norm and head.
 * @module
 */
import type { Olmo2 } from "../core/olmo2.ts";
import { rowProducts } from "../core/row_products.ts";

/** Tokens at each end, unless told otherwise. */
const TOKENS = 10;
/** Bars of the histogram, as SAEDashboard draws it. */
const BARS = 40;

/** A token, and how much a unit of the feature adds to its logit. */
export interface TokenLogit {
  /** Its id. */
  readonly id: number;
  /** W_U · (w ∘ W_dec[i]), with w the weights of the final norm; its division by the stream's norm is left out. */
  readonly logit: number;
}

/** A histogram of the logits of all tokens. */
export interface LogitHistogram {
  /** Tokens in each bar. */
  readonly heights: readonly number[];
  /** Middle of each bar. */
  readonly values: readonly number[];
}

/** What a feature does to the logits. */
export interface LogitLens {
  /** Its index. */
  readonly feature: number;
  /** Tokens that it makes likelier, most first. */
  readonly top: readonly TokenLogit[];
  /** Tokens that it makes less likely, most first. */
  readonly bottom: readonly TokenLogit[];
  /** How the logits of all tokens lie. */
  readonly histogram: LogitHistogram;
}

/** Options of {@link logitLens}. */
export interface LogitLensOptions {
  /** Number of features. */
  readonly d_sae: number;
  /** f32 `[end - start, d_model]`: what features [start, end) write. */
  rowsOfDecoder(start: number, end: number): Promise<Float32Array<ArrayBuffer>>;
  /** Weights of the model's final norm, `[d_model]`; leave it out for an SAE that reads what is normed already. */
  readonly finalNorm?: ArrayLike<number>;
  /** Tokens that the tokenizer has; the head's rows from there on are for alignment. */
  readonly nVocab: number;
  /** Tokens at each end; 10 when absent. */
  readonly nTokens?: number;
}

/**
 * The logit lens of every feature, in order.
 * @param model With its head; its blocks are not used.
 * @throws {RangeError} If a logit is not finite: names the feature.
 */
export async function* logitLens(
  model: Olmo2,
  options: LogitLensOptions,
): AsyncGenerator<LogitLens> {
  const { d_sae, finalNorm, nVocab, nTokens = TOKENS } = options;
  const { d_model, vocab_size } = model.config;
  const products = rowProducts(model.gpu, {
    nRows: d_sae,
    d_model,
    nColumns: vocab_size,
    async rows(start, end): Promise<Float32Array<ArrayBuffer>> {
      const rows = await options.rowsOfDecoder(start, end);
      if (!finalNorm) return rows;
      for (let i = 0; i < rows.length; i++) rows[i]! *= finalNorm[i % d_model]!;
      return rows;
    },
    multiply: (rec, x, logits) => model.logits(rec, x, logits),
  });
  for await (const { start, end, values } of products) {
    for (let feature = start; feature < end; feature++) {
      const first = (feature - start) * vocab_size;
      const logits = values.subarray(first, first + nVocab);
      if (!logits.every(Number.isFinite)) {
        throw new RangeError(
          `Cannot read feature ${feature} by the head: expected finite logits: got others: check that the SAE fits the model`,
        );
      }
      yield {
        feature,
        top: strongest(logits, nTokens, 1),
        bottom: strongest(logits, nTokens, -1),
        histogram: histogramOf(logits),
      };
    }
  }
}

/** The n largest of sign · logit, largest first; of equals the lower id. */
function strongest(
  logits: Float32Array,
  n: number,
  sign: 1 | -1,
): TokenLogit[] {
  const best: TokenLogit[] = [];
  let least = -Infinity;
  for (let id = 0; id < logits.length; id++) {
    const value = sign * logits[id]!;
    if (best.length === n && value <= least) continue;
    let place = best.length;
    while (place > 0 && value > sign * best[place - 1]!.logit) place--;
    best.splice(place, 0, { id, logit: logits[id]! });
    if (best.length > n) best.pop();
    least = sign * best.at(-1)!.logit;
  }
  return best;
}

function histogramOf(logits: Float32Array): LogitHistogram {
  let [lowest, highest] = [Infinity, -Infinity];
  for (const logit of logits) {
    if (logit < lowest) lowest = logit;
    if (logit > highest) highest = logit;
  }
  const width = (highest - lowest) / BARS;
  const heights = new Array<number>(BARS).fill(0);
  for (const logit of logits) {
    const bar = width > 0 ? Math.floor((logit - lowest) / width) : 0;
    heights[Math.min(bar, BARS - 1)]!++;
  }
  const values = heights.map((_, bar) => lowest + (bar + 0.5) * width);
  return { heights, values };
}
