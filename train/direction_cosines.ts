/**
 * How alike the directions of features are.
 * @module
 */
import { rowProducts } from "../core/row_products.ts";
import type { Gpu } from "../gpu/mod.ts";
import { matmul } from "../kernels/matmul.ts";

/** Directions, by runs of features. */
export interface Directions {
  readonly d_model: number;
  readonly d_sae: number;
  /** f32 `[end - start, d_model]` */
  rows(start: number, end: number): Promise<Float32Array<ArrayBuffer>>;
}

/** Directions that go to the GPU at once. */
const LOAD_BYTES = 64 * 2 ** 20;

/**
 * The largest cosine of each direction with another one, f32 `[d_sae]`; 0 for a direction of norm 0, -Infinity if there is
 * no other. Takes 4 · d_sae · d_model bytes on the GPU.
 * @param onProgress Told how many directions are done.
 */
export async function maxCosines(
  gpu: Gpu,
  { d_model, d_sae, rows }: Directions,
  onProgress: (nDone: number) => void = () => {},
): Promise<Float32Array> {
  const unit = async (
    start: number,
    end: number,
  ): Promise<Float32Array<ArrayBuffer>> =>
    normed(await rows(start, end), d_model);
  using all = gpu.tensor("directions", "f32", [d_sae, d_model]);
  const step = Math.max(1, Math.floor(LOAD_BYTES / (4 * d_model)));
  for (let start = 0; start < d_sae; start += step) {
    all.write(await unit(start, Math.min(start + step, d_sae)), start);
  }
  const largest = new Float32Array(d_sae);
  const products = rowProducts(gpu, {
    ...{ nRows: d_sae, d_model, nColumns: d_sae, rows: unit },
    multiply: (rec, x, results) =>
      matmul(rec, { layout: "mk,nk", A: x, B: all, C: results }),
  });
  for await (const { start, end, values } of products) {
    for (let i = start; i < end; i++) {
      const first = (i - start) * d_sae;
      let most = -Infinity;
      for (let k = 0; k < d_sae; k++) {
        if (k !== i && values[first + k]! > most) most = values[first + k]!;
      }
      largest[i] = most;
    }
    onProgress(end);
  }
  return largest;
}

/** Rows over their norms, in place; rows of norm 0 stay 0. */
function normed(
  rows: Float32Array<ArrayBuffer>,
  d_model: number,
): Float32Array<ArrayBuffer> {
  for (let at = 0; at < rows.length; at += d_model) {
    const row = rows.subarray(at, at + d_model);
    const norm = Math.sqrt(row.reduce((sum, value) => sum + value * value, 0));
    if (norm > 0) row.forEach((value, j) => row[j] = value / norm);
  }
  return rows;
}
