/**
 * Products of many rows with a matrix on the GPU, for results that are read back and looked through on the host.
 * @module
 */
import type { Gpu, Recorder, Tensor } from "../gpu/mod.ts";

/** Bytes of results that are held at once. */
const RESULT_BYTES = 64 * 2 ** 20;
/** Rows that are multiplied at once. */
const MAX_ROWS = 1024;

/** What is multiplied. */
export interface RowProducts {
  /** Number of rows. */
  readonly nRows: number;
  /** Length of each. */
  readonly d_model: number;
  /** Length of each result. */
  readonly nColumns: number;
  /** f32 `[end - start, d_model]`: rows [start, end). */
  rows(start: number, end: number): Promise<Float32Array<ArrayBuffer>>;
  /** Records results f32 `[n, nColumns]` of x, f32 `[n, d_model]`. */
  multiply(rec: Recorder, x: Tensor, results: Tensor): void;
}

/** Results of a run of rows. */
export interface ProductRows {
  /** The first row. */
  readonly start: number;
  /** One past the last row. */
  readonly end: number;
  /** f32 `[end - start, nColumns]` */
  readonly values: Float32Array<ArrayBuffer>;
}

/**
 * The results of all rows, in order, some rows at a time.
 * @throws {RangeError} If one result does not fit into a binding.
 */
export async function* rowProducts(
  gpu: Gpu,
  products: RowProducts,
): AsyncGenerator<ProductRows> {
  const { nRows, d_model, nColumns } = products;
  const bytes = Math.min(
    RESULT_BYTES,
    gpu.limits.maxStorageBufferBindingSize,
  );
  const step = Math.min(
    nRows,
    MAX_ROWS,
    Math.max(1, Math.floor(bytes / (4 * nColumns))),
  );
  using x = gpu.tensor("rows", "f32", [step, d_model]);
  using results = gpu.tensor("products", "f32", [step, nColumns]);
  for (let start = 0; start < nRows; start += step) {
    const end = Math.min(start + step, nRows);
    x.write(await products.rows(start, end));
    const part = results.rows(0, end - start);
    gpu.record("row products", (rec) => {
      products.multiply(rec, x.rows(0, end - start), part);
    });
    yield { start, end, values: await gpu.read(part) };
  }
}
