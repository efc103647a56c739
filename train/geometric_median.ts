/**
 * The geometric median: the point with the least sum of distances to all
 * vectors, which far outliers move less than they move the mean.
 * @module
 */

/** Vectors that a median is taken of at most; more change it by less than its use as a start can tell. */
export const MEDIAN_ROWS = 32_768;

const MAX_ITERATIONS = 100;
/** Ends once a step moves the point by less than this share of the mean distance. */
const TOLERANCE = 1e-7;

/**
 * Geometric median of vectors, in float64, by Weiszfeld's iteration from their mean.
 * Source: Vardi and Zhang, "The multivariate L1-median and associated data depth", 2000,
 * for iterates that lie on a vector.
 * @param rows Bits of bf16 `[n, d_model]`, finite.
 * @throws {RangeError} If there is no vector.
 */
export function geometricMedian(
  rows: Uint16Array,
  d_model: number,
): Float64Array {
  const n = rows.length / d_model;
  if (!(Number.isInteger(n) && n > 0)) {
    throw new RangeError(
      `Cannot take a geometric median: expected vectors of ${d_model} values: got ${rows.length} values`,
    );
  }
  const all = new RowsInTurn(rows, d_model);
  let median = all.weightedMean(() => 1).mean;
  for (let i = 0; i < MAX_ITERATIONS; i++) {
    const { next, moved, meanDistance } = weiszfeldStep(all, median);
    median = next;
    if (moved <= TOLERANCE * meanDistance) break;
  }
  return median;
}

function weiszfeldStep(
  all: RowsInTurn,
  median: Float64Array,
): { next: Float64Array; moved: number; meanDistance: number } {
  let sumDistances = 0;
  let nOnIt = 0;
  const { mean, weight } = all.weightedMean((row) => {
    const distance = distanceOf(row, median);
    sumDistances += distance;
    if (distance > 0) return 1 / distance;
    nOnIt++;
    return 0;
  });
  const meanDistance = sumDistances / all.n;
  if (weight === 0) return { next: median, moved: 0, meanDistance };
  // A vector that lies on the point pulls with a force of at most 1 against all others.
  const pull = weight * distanceOf(mean, median);
  const stay = nOnIt === 0 ? 0 : Math.min(1, nOnIt / pull);
  const next = mean.map((value, j) => (1 - stay) * value + stay * median[j]!);
  return { next, moved: distanceOf(next, median), meanDistance };
}

/** Rows of bf16, widened one at a time. */
class RowsInTurn {
  readonly n: number;
  readonly #rows: Uint16Array;
  readonly #words: Uint32Array;
  readonly #row: Float32Array;

  constructor(rows: Uint16Array, d_model: number) {
    this.n = rows.length / d_model;
    this.#rows = rows;
    this.#words = new Uint32Array(d_model);
    this.#row = new Float32Array(this.#words.buffer);
  }

  /** Mean with a weight a row, and the sum of the weights; mean is 0 where that is. */
  weightedMean(
    weightOf: (row: Float32Array) => number,
  ): { mean: Float64Array; weight: number } {
    const words = this.#words;
    const row = this.#row;
    const d_model = row.length;
    const mean = new Float64Array(d_model);
    let weight = 0;
    for (let at = 0; at < this.#rows.length; at += d_model) {
      for (let j = 0; j < d_model; j++) words[j] = this.#rows[at + j]! << 16;
      const w = weightOf(row);
      if (w === 0) continue;
      for (let j = 0; j < d_model; j++) mean[j]! += w * row[j]!;
      weight += w;
    }
    if (weight > 0) { for (let j = 0; j < d_model; j++) mean[j]! /= weight; }
    return { mean, weight };
  }
}

function distanceOf(
  a: Float32Array | Float64Array,
  b: Float64Array,
): number {
  let squares = 0;
  for (let j = 0; j < b.length; j++) {
    const difference = a[j]! - b[j]!;
    squares += difference * difference;
  }
  return Math.sqrt(squares);
}
