/**
 * Matrix products in float64.
 * @module
 */
import type { MatmulLayout } from "../../kernels/matmul.ts";

/** A product, and the size of what was added up in its elements. */
export interface Product {
  /** `[M, N]` */
  readonly C: Float64Array;
  /** Largest Σ_k |A[m, k] · B[k, n]| of all elements, which rounding errors grow with. */
  readonly largestSum: number;
}

/** C[m, n] = Σ_k A[m, k] · B[k, n], with A and B stored as the layout says. */
export function matmulReference(
  layout: MatmulLayout,
  A: ArrayLike<number>,
  B: ArrayLike<number>,
  [M, N, K]: readonly [number, number, number],
): Product {
  const C = new Float64Array(M * N);
  let largestSum = 0;
  for (let m = 0; m < M; m++) {
    for (let n = 0; n < N; n++) {
      let sum = 0;
      let absolute = 0;
      for (let k = 0; k < K; k++) {
        const a = A[layout.startsWith("mk") ? m * K + k : k * M + m]!;
        const b = B[layout.endsWith("nk") ? n * K + k : k * N + n]!;
        sum += a * b;
        absolute += Math.abs(a * b);
      }
      C[m * N + n] = sum;
      largestSum = Math.max(largestSum, absolute);
    }
  }
  return { C, largestSum };
}
