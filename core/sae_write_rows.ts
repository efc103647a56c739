/**
 * The weights of an SAE as the bytes of tensors to write, read a run of features at a time, so that a matrix of
 * gigabytes never lies in memory whole.
 * @module
 */
import { f32ToBf16 } from "./dtype.ts";
import type { TensorToWrite } from "./safetensors.ts";

/** Element types that weights are written in. BF16 rounds to nearest, ties to even. */
export type WeightDtype = "F32" | "BF16";

/** A matrix with one row a feature: f32 `[end - start, d_model]` for the features [start, end). */
export interface FeatureMatrix {
  /** Number of features. */
  readonly d_sae: number;
  /** Size of the residual stream. */
  readonly d_model: number;
  /** Reads features [start, end). */
  read(start: number, end: number): Promise<Float32Array>;
}

/** Bytes of rows that are read at once. */
const READ_BYTES = 8 * 2 ** 20;
/** Values of a transpose that are written at once. */
const CHUNK = 2 ** 22;
/** Features and dimensions that are transposed together, so that what is read and written stays in the cache. */
const TILE = 32;

/** A matrix as a tensor `[d_sae, d_model]`. */
export function rowsTensor(
  name: string,
  dtype: WeightDtype,
  matrix: FeatureMatrix,
): TensorToWrite {
  const { d_sae, d_model } = matrix;
  async function* bytes(): AsyncGenerator<Uint8Array> {
    for await (const { rows } of runsOf(matrix)) {
      yield bytesOf(name, dtype, rows);
    }
  }
  return { name, dtype, shape: [d_sae, d_model], bytes };
}

/**
 * A matrix as a tensor `[d_model, d_sae]`. All features are read once for every `blockBytes` of it.
 * @param blockBytes Memory that a part of the transpose may take, in f32.
 */
export function transposedTensor(
  name: string,
  dtype: WeightDtype,
  matrix: FeatureMatrix,
  blockBytes: number,
): TensorToWrite {
  const { d_sae, d_model } = matrix;
  const columns = Math.max(1, Math.floor(blockBytes / (4 * d_sae)));
  async function* bytes(): AsyncGenerator<Uint8Array> {
    const block = new Float32Array(Math.min(columns, d_model) * d_sae);
    for (let from = 0; from < d_model; from += columns) {
      const to = Math.min(from + columns, d_model);
      for await (const { start, rows } of runsOf(matrix)) {
        transposeInto(block, d_sae, start, rows, d_model, from, to);
      }
      // Copies, as the block is filled anew.
      const end = (to - from) * d_sae;
      for (let at = 0; at < end; at += CHUNK) {
        const chunk = block.slice(at, Math.min(at + CHUNK, end));
        yield bytesOf(name, dtype, chunk);
      }
    }
  }
  return { name, dtype, shape: [d_model, d_sae], bytes };
}

/**
 * A vector as a tensor.
 * @throws {RangeError} If a value is not finite, or too large for the type.
 */
export function vectorTensor(
  name: string,
  dtype: WeightDtype,
  values: Float32Array,
): TensorToWrite {
  const bad = values.findIndex((value) => !Number.isFinite(value));
  if (bad >= 0) {
    throw new RangeError(
      `Cannot write tensor "${name}": expected finite values: got ${
        values[bad]
      } at ${bad}`,
    );
  }
  const shape = [values.length];
  return { name, dtype, shape, bytes: bytesOf(name, dtype, values) };
}

/**
 * W·v of a matrix and a vector `[d_model]`, summed in float64: `[d_sae]`.
 */
export async function timesVector(
  matrix: FeatureMatrix,
  v: Float32Array,
): Promise<Float64Array> {
  const { d_sae, d_model } = matrix;
  const products = new Float64Array(d_sae);
  for await (const { start, rows } of runsOf(matrix)) {
    for (let i = 0; i < rows.length / d_model; i++) {
      let sum = 0;
      for (let j = 0; j < d_model; j++) sum += rows[i * d_model + j]! * v[j]!;
      products[start + i] = sum;
    }
  }
  return products;
}

/** The rows of a matrix in order. */
async function* runsOf(
  { d_sae, d_model, read }: FeatureMatrix,
): AsyncGenerator<{ start: number; rows: Float32Array }> {
  const step = Math.max(1, Math.floor(READ_BYTES / (4 * d_model)));
  for (let start = 0; start < d_sae; start += step) {
    const rows = await read(start, Math.min(start + step, d_sae));
    yield { start, rows };
  }
}

/** Columns [from, to) of `rows`, the features from `start` on, as rows of `block` `[to - from, d_sae]`. */
function transposeInto(
  block: Float32Array,
  d_sae: number,
  start: number,
  rows: Float32Array,
  d_model: number,
  from: number,
  to: number,
): void {
  const n = rows.length / d_model;
  for (let i0 = 0; i0 < n; i0 += TILE) {
    const i1 = Math.min(i0 + TILE, n);
    for (let j0 = from; j0 < to; j0 += TILE) {
      const j1 = Math.min(j0 + TILE, to);
      for (let j = j0; j < j1; j++) {
        const at = (j - from) * d_sae + start;
        for (let i = i0; i < i1; i++) block[at + i] = rows[i * d_model + j]!;
      }
    }
  }
}

/**
 * Little-endian bytes of values.
 * @throws {RangeError} If a value is too large for the type.
 */
function bytesOf(
  name: string,
  dtype: WeightDtype,
  values: Float32Array,
): Uint8Array {
  const stored = dtype === "F32" ? values : f32ToBf16(values);
  if (stored instanceof Uint16Array) {
    let bad = 0;
    while (bad < stored.length && (stored[bad]! & 0x7f80) !== 0x7f80) bad++;
    if (bad < stored.length) {
      throw new RangeError(
        `Cannot write tensor "${name}" as bf16: expected values of at most 3.39e38: got ${
          values[bad]
        }: write it as f32`,
      );
    }
  }
  return new Uint8Array(stored.buffer, stored.byteOffset, stored.byteLength);
}
