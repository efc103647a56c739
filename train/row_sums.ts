/**
 * Mean, norm and variance of residual vectors, for training and for measuring.
 * @module
 */
import { bf16ToF32 } from "../core/dtype.ts";

/** Sums over vectors, in float64. */
export class RowSums {
  #n = 0;
  #norms = 0;
  #squares = 0;
  readonly #sum: Float64Array;

  /** No vector yet. */
  constructor(d_model: number) {
    this.#sum = new Float64Array(d_model);
  }

  /**
   * Adds vectors: bits of bf16 `[n, d_model]`.
   * @param norms Takes the L2 norm of each, `[n]`.
   */
  add(rows: Uint16Array, norms?: Float64Array): void {
    const values = bf16ToF32(rows);
    const sum = this.#sum;
    const d_model = sum.length;
    for (let start = 0; start < values.length; start += d_model) {
      let squares = 0;
      for (let j = 0; j < d_model; j++) {
        const value = values[start + j]!;
        sum[j]! += value;
        squares += value * value;
      }
      const norm = Math.sqrt(squares);
      if (norms) norms[start / d_model] = norm;
      this.#norms += norm;
      this.#squares += squares;
    }
    this.#n += values.length / d_model;
  }

  /** How many vectors there are. */
  get n(): number {
    return this.#n;
  }

  /** Mean of their L2 norms; NaN without any, as all below. */
  get meanNorm(): number {
    return this.#norms / this.#n;
  }

  /** Their mean, `[d_model]`. */
  mean(): Float64Array {
    return this.#sum.map((sum) => sum / this.#n);
  }

  /** Mean of Σ_j (x − mean)²: what an FVU is a share of. */
  variance(): number {
    const ofMean = this.mean().reduce((sum, value) => sum + value * value, 0);
    return this.#squares / this.#n - ofMean;
  }
}
