/**
 * The weight matrices of SAE files by feature, whichever way round the file
 * holds them, in bounded memory.
 * @module
 */
import { bf16ToF32, f16ToF32 } from "./dtype.ts";
import {
  storedBytes,
  type StoredDtype,
  storedElementBytes,
} from "./safetensors_header.ts";
import type { StoredTensor, TensorFile } from "./tensor_file.ts";

/** Values of one matrix; row i belongs to feature i. */
export interface FeatureRows {
  /** What errors call it: the tensor and its file. */
  readonly name: string;
  /**
   * f32 `[end - start, d_model]`: features [start, end).
   * @throws {RangeError} If there is no such feature, or a value is not finite.
   */
  rows(start: number, end: number): Promise<Float32Array<ArrayBuffer>>;
}

/** Which dimension of a stored matrix runs over the features. */
export type Orientation = "[d_sae, d_model]" | "[d_model, d_sae]";

/** A block of transposed features that is kept: reads come in order, and each one touches every row of the file. */
const BLOCK_BYTES = { atLeast: 16 * 2 ** 20, atMost: 256 * 2 ** 20 };
/** Blocks are this much longer than the read that caused them. */
const READ_AHEAD = 16;

/**
 * Opens one matrix of a file.
 * @throws {TypeError} If it is no float tensor, or of another shape.
 * @throws {RangeError} If there is no such tensor.
 */
export function featureRows(
  file: TensorFile,
  name: string,
  d_sae: number,
  d_model: number,
  orientation: Orientation,
): FeatureRows {
  const byModel = orientation === "[d_model, d_sae]";
  const shape = byModel ? [d_model, d_sae] : [d_sae, d_model];
  const info = floatTensor(file, name, shape);
  const rowBytes = d_model * ELEMENT_BYTES[info.dtype]!;
  const readRows = byModel !== (info.isTransposed ?? false)
    ? transposedReader(file, info, d_sae, d_model)
    : async (start: number, end: number): Promise<Float32Array<ArrayBuffer>> =>
      toFloats(info, await file.read(name, start * rowBytes, end * rowBytes));
  const title = `tensor "${name}" of "${file.name}"`;
  return {
    name: title,
    async rows(start, end): Promise<Float32Array<ArrayBuffer>> {
      const whole = Number.isInteger(start) && Number.isInteger(end);
      if (!whole || start < 0 || start > end || end > d_sae) {
        throw new RangeError(
          `Cannot read ${title}: expected features inside [0, ${d_sae}): got [${start}, ${end})`,
        );
      }
      const values = await readRows(start, end);
      checkFinite(
        file,
        name,
        values,
        (i) => `feature ${start + Math.floor(i / d_model)}`,
      );
      return values;
    },
  };
}

/**
 * Reads a whole vector.
 * @throws {TypeError} If it is no float tensor, or of another length.
 * @throws {RangeError} If there is no such tensor, or a value is not finite.
 */
export async function floatVector(
  file: TensorFile,
  name: string,
  length: number,
): Promise<Float32Array<ArrayBuffer>> {
  const info = floatTensor(file, name, [length]);
  const values = toFloats(
    info,
    await file.read(name, 0, storedBytes(info.dtype, info.shape)),
  );
  checkFinite(file, name, values, (i) => `[${i}]`);
  return values;
}

/**
 * Reads a tensor of one number.
 * @throws {TypeError} If it is no number, or of more than one.
 * @throws {RangeError} If there is no such tensor, or it is not finite.
 */
export async function scalar(file: TensorFile, name: string): Promise<number> {
  const { dtype, shape } = file.info(name);
  const n = storedBytes(dtype, shape);
  const isFloat = Object.hasOwn(ELEMENT_BYTES, dtype);
  if (n !== storedElementBytes(dtype) || !(isFloat || dtype in INTEGERS)) {
    throw new TypeError(
      `Cannot read "${file.name}": expected tensor "${name}" to be one number: got ${dtype}[${
        shape.join(", ")
      }]: check that the files of this folder belong together`,
    );
  }
  const bytes = await file.read(name, 0, n);
  const values = isFloat
    ? toFloats({ name, dtype, shape }, bytes)
    : Float32Array.of(INTEGERS[dtype]!(new DataView(bytes.buffer)));
  checkFinite(file, name, values, () => "its only place");
  return values[0]!;
}

const INTEGERS: Partial<Record<StoredDtype, (view: DataView) => number>> = {
  I32: (view) => view.getInt32(0, true),
  I64: (view) => Number(view.getBigInt64(0, true)),
};

/**
 * The sizes of an SAE whose config does not tell them, by one of its matrices.
 * @throws {TypeError} If it is no matrix.
 * @throws {RangeError} If there is no such tensor, or it is of no SAE.
 */
export function matrixSizes(
  file: TensorFile,
  name: string,
  orientation: Orientation,
): { d_model: number; d_sae: number } {
  const { shape } = file.info(name);
  const [d_sae = 0, d_model = 0] = orientation === "[d_sae, d_model]"
    ? shape
    : shape.toReversed();
  if (shape.length === 2 && d_model > 0 && d_sae > 0) return { d_model, d_sae };
  throw new TypeError(
    `Cannot read "${file.name}": expected tensor "${name}" to be a matrix ${orientation}: got shape [${
      shape.join(", ")
    }]: check that it is an SAE`,
  );
}

/**
 * What the file tells of a tensor that must have this shape.
 * @throws {TypeError} If it is no float tensor, or of another shape.
 * @throws {RangeError} If there is no such tensor.
 */
export function floatTensor(
  file: TensorFile,
  name: string,
  shape: readonly number[],
): StoredTensor {
  const info = file.info(name);
  const fits = info.shape.length === shape.length &&
    info.shape.every((size, i) => size === shape[i]);
  if (fits && Object.hasOwn(ELEMENT_BYTES, info.dtype)) return info;
  throw new TypeError(
    `Cannot read "${file.name}": expected tensor "${name}" to be F32, BF16, F16 or F64[${
      shape.join(", ")
    }]: got ${info.dtype}[${
      info.shape.join(", ")
    }]: check that the files of this folder belong together`,
  );
}

/** Element types of SAE weights, with their bytes. */
const ELEMENT_BYTES: Partial<Record<StoredDtype, number>> = {
  F64: 8,
  F32: 4,
  BF16: 2,
  F16: 2,
};

function toFloats(
  { dtype }: StoredTensor,
  { buffer }: Uint8Array<ArrayBuffer>,
): Float32Array<ArrayBuffer> {
  if (dtype === "F32") return new Float32Array(buffer);
  if (dtype === "F64") return new Float32Array(new Float64Array(buffer));
  const bits = new Uint16Array(buffer);
  return dtype === "BF16" ? bf16ToF32(bits) : f16ToF32(bits);
}

/**
 * Features are columns of the stored matrix. A block of them is gathered from
 * every row; blocks of all features are read without gaps.
 */
function transposedReader(
  file: TensorFile,
  info: StoredTensor,
  d_sae: number,
  d_model: number,
): (start: number, end: number) => Promise<Float32Array<ArrayBuffer>> {
  const blockOf = (n: number): number => {
    const bytes = Math.min(
      Math.max(READ_AHEAD * n * d_model * 4, BLOCK_BYTES.atLeast),
      BLOCK_BYTES.atMost,
    );
    return Math.max(n, Math.floor(bytes / (4 * d_model)));
  };
  const none = { start: 0, end: 0, values: new Float32Array(0) };
  let block = none;
  return async (start, end): Promise<Float32Array<ArrayBuffer>> => {
    if (start < block.start || end > block.end) {
      const n = blockOf(end - start);
      // A small matrix is read whole, whatever part is asked first.
      const first = n < d_sae ? start : 0;
      const last = Math.min(first + n, d_sae);
      block = none; // two of them are not held
      const values = await gather(file, info, d_model, d_sae, first, last);
      block = { start: first, end: last, values };
    }
    const offset = block.start * d_model;
    return block.values.slice(start * d_model - offset, end * d_model - offset);
  };
}

/** Rows of the stored matrix that are turned together: as many neighbors are written at once. */
const TILE_ROWS = 16;

/** f32 `[end - start, d_model]` from columns [start, end) of a stored `[d_model, d_sae]`. */
async function gather(
  file: TensorFile,
  info: StoredTensor,
  d_model: number,
  d_sae: number,
  start: number,
  end: number,
): Promise<Float32Array<ArrayBuffer>> {
  const n = end - start;
  const bytes = ELEMENT_BYTES[info.dtype]!;
  // Whole rows lie one behind the other, and are read at once.
  const readRows = n === d_sae
    ? Math.max(TILE_ROWS, Math.floor(BLOCK_BYTES.atLeast / (d_sae * bytes)))
    : 1;
  const chunkRows = Math.max(readRows, TILE_ROWS);
  const values = new Float32Array(n * d_model);
  for (let row = 0; row < d_model; row += chunkRows) {
    const last = Math.min(row + chunkRows, d_model);
    const chunk = new Float32Array((last - row) * n);
    for (let j = row; j < last; j += readRows) {
      const first = (j * d_sae + start) * bytes;
      const size = Math.min(readRows, last - j) * n * bytes;
      const read = await file.read(info.name, first, first + size);
      chunk.set(toFloats(info, read), (j - row) * n);
    }
    for (let j = row; j < last; j += TILE_ROWS) {
      const tile = chunk.subarray((j - row) * n, (j + TILE_ROWS - row) * n);
      turn(tile, n, values.subarray(j), d_model);
    }
  }
  return values;
}

/** Writes the rows of a tile as columns: `to[i, j] = tile[j, i]`. */
function turn(
  tile: Float32Array,
  n: number,
  to: Float32Array,
  d_model: number,
): void {
  const nRows = tile.length / n;
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < nRows; j++) to[i * d_model + j] = tile[j * n + i]!;
  }
}

function checkFinite(
  file: TensorFile,
  name: string,
  values: Float32Array,
  place: (index: number) => string,
): void {
  let bad = 0;
  while (bad < values.length && Number.isFinite(values[bad])) bad++;
  if (bad === values.length) return;
  throw new RangeError(
    `Cannot read "${file.name}": expected finite values in tensor "${name}": got ${
      values[bad]
    } at ${place(bad)}: the file is damaged: fetch it again`,
  );
}
