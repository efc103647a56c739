/**
 * What is known of the vectors that batches are drawn from: mean, norms,
 * variance, and the geometric median where a run starts from it.
 * @module
 */
import { geometricMedian, MEDIAN_ROWS } from "./geometric_median.ts";
import { RowSums } from "./row_sums.ts";

/** What is known of the vectors that are drawn from. */
export interface RowStatistics {
  /** How many there are, as far as it is known; see the source. */
  readonly n: number;
  /** How many of them the rest was measured on. */
  readonly nMeasured: number;
  /** Their mean, unscaled, `[d_model]`. */
  readonly mean: Float64Array;
  /** Their geometric median, unscaled, `[d_model]`, where it was asked for. */
  readonly median?: Float64Array;
  /** Mean of their L2 norms. */
  readonly meanNorm: number;
  /** Mean of Σ_j (x − mean)², unscaled: what the FVU is a share of. */
  readonly variance: number;
  /** √d_model / meanNorm: scales the mean norm to √d_model. */
  readonly inputScale: number;
}

/** Measures vectors as they come. */
export class RowMeasure {
  readonly #sums: RowSums;
  readonly #d_model: number;
  /** Every how manieth vector is kept for the median; 0 for none. */
  readonly #stride: number;
  readonly #kept: Uint16Array[] = [];

  /**
   * Nothing measured yet.
   * @param nMost Vectors that will come at most; decides which of them the median is taken of.
   */
  constructor(
    d_model: number,
    { init = "mean", nMost }: {
      readonly init?: "mean" | "median" | undefined;
      readonly nMost: number;
    },
  ) {
    this.#sums = new RowSums(d_model);
    this.#d_model = d_model;
    this.#stride = init === "median" ? Math.ceil(nMost / MEDIAN_ROWS) : 0;
  }

  /** Vectors so far. */
  get n(): number {
    return this.#sums.n;
  }

  /** Adds vectors: bits of bf16 `[n, d_model]`. */
  add(rows: Uint16Array): void {
    const d_model = this.#d_model;
    if (this.#stride > 0) {
      const first = (this.#stride - this.n % this.#stride) % this.#stride;
      const step = this.#stride * d_model;
      for (let at = first * d_model; at < rows.length; at += step) {
        this.#kept.push(rows.slice(at, at + d_model));
      }
    }
    this.#sums.add(rows);
  }

  /**
   * What was measured.
   * @param name What errors call the data.
   * @param n How many vectors there are; those that were measured when absent.
   * @throws {RangeError} If their mean norm is not above 0.
   */
  finish(name: string, n: number = this.n): RowStatistics {
    const { meanNorm } = this.#sums;
    if (!(meanNorm > 0 && meanNorm < Infinity)) {
      throw new RangeError(
        `Cannot scale the vectors of "${name}": expected a mean norm above 0: got ${meanNorm}: collect them again`,
      );
    }
    const d_model = this.#d_model;
    return {
      n,
      nMeasured: this.n,
      mean: this.#sums.mean(),
      ...(this.#stride > 0 &&
        { median: geometricMedian(joined(this.#kept, d_model), d_model) }),
      meanNorm,
      variance: this.#sums.variance(),
      inputScale: Math.sqrt(d_model) / meanNorm,
    };
  }
}

function joined(rows: readonly Uint16Array[], d_model: number): Uint16Array {
  const all = new Uint16Array(rows.length * d_model);
  for (const [i, row] of rows.entries()) all.set(row, i * d_model);
  return all;
}
