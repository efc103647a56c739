/**
 * The product that decoding is made of: one row, or a few, with a model's weights.
 * @module
 */
import { bf16ToF32, f32ToBf16 } from "../core/dtype.ts";
import { Rng } from "../core/rng.ts";

/** Rows and columns of the weights. */
export type MatvecShape = readonly [N: number, K: number];

/** y = W·x for each row of x. */
export interface MatvecProblem {
  /** Rows of W; even. */
  readonly N: number;
  readonly K: number;
  /** bf16 `[N, K]`, as checkpoints store it */
  readonly W: Uint16Array<ArrayBuffer>;
  /** f32 `[8, K]`, of which one row is taken or more; bf16 holds the numbers exactly. */
  readonly x: Float32Array<ArrayBuffer>;
}

/** Most rows of x. */
export const MOST_ROWS = 8;

/** Numbers drawn for W, which they repeat in; odd, so that rows differ. */
const DRAWN = 2 ** 20 - 3;

/** Normal numbers that bf16 holds exactly. */
export function matvecProblem(
  [N, K]: MatvecShape,
  seed: number,
): MatvecProblem {
  const rng = new Rng(seed);
  const normals = (n: number) =>
    f32ToBf16(Float32Array.from({ length: n }, () => rng.normal()));
  const drawn = normals(Math.min(DRAWN, N * K));
  const W = new Uint16Array(N * K);
  for (let at = 0; at < W.length; at += drawn.length) {
    W.set(drawn.subarray(0, Math.min(drawn.length, W.length - at)), at);
  }
  return { N, K, W, x: bf16ToF32(normals(MOST_ROWS * K)) };
}

/**
 * Sees to it that a product was computed: some elements of a row against float64.
 * @param tolerance Largest error as a share of √K, about which the elements are large.
 * @throws {RangeError} If an element differs.
 */
export function checkMatvec(
  { N, K, W, x }: MatvecProblem,
  name: string,
  y: ArrayLike<number>,
  tolerance = 1e-3,
  row = 0,
): void {
  const step = Math.max(1, Math.floor(N / 64));
  for (let n = N - 1; n >= 0; n -= step) {
    const weights = bf16ToF32(W.subarray(n * K, (n + 1) * K));
    let wanted = 0;
    for (let k = 0; k < K; k++) wanted += weights[k]! * x[row * K + k]!;
    if (Math.abs(y[n]! - wanted) <= tolerance * Math.sqrt(K)) continue;
    throw new RangeError(
      `Cannot compare ${name}: expected y[${n}] = ${wanted}: got ${
        y[n]
      }: it does not compute the product`,
    );
  }
}
