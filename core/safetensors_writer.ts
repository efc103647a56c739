/**
 * Safetensors files written as a stream, so that a checkpoint never lies in memory twice.
 * @module
 */
import {
  METADATA_KEY,
  storedBytes,
  type StoredDtype,
  storedElementBytes,
} from "./safetensors_header.ts";

/** One tensor to write. */
export interface TensorToWrite {
  /** Its name in the file. */
  readonly name: string;
  /** Element type. */
  readonly dtype: StoredDtype;
  /** Sizes, outermost first. */
  readonly shape: readonly number[];
  /** Row-major little-endian elements, whole or in chunks of any size. */
  readonly bytes: Uint8Array | (() => AsyncIterable<Uint8Array>);
}

/**
 * A safetensors file as a stream of chunks. Tensors are laid out by element
 * size, largest first, so that all are aligned, and then by name; the header is
 * padded with spaces to 8 bytes. Equal input gives equal bytes.
 * @throws {RangeError} If a name is used twice or reserved, or, at the latest while streaming, if bytes do not fill the shape.
 */
export function safetensorsChunks(
  tensors: Iterable<TensorToWrite>,
  metadata?: Readonly<Record<string, string>>,
): AsyncIterable<Uint8Array> {
  const sorted = [...tensors].sort((a, b) =>
    storedElementBytes(b.dtype) - storedElementBytes(a.dtype) ||
    (a.name < b.name ? -1 : 1)
  );
  const header = new Map<string, unknown>();
  if (metadata) header.set(METADATA_KEY, metadata);
  let end = 0;
  for (const { name, dtype, shape, bytes } of sorted) {
    if (name === METADATA_KEY || header.has(name)) {
      throw new RangeError(
        `Cannot write tensor "${name}": expected names that are not reserved and used once`,
      );
    }
    const start = end;
    end += storedBytes(dtype, shape);
    if (Number.isNaN(end)) {
      throw new RangeError(
        `Cannot write tensor "${name}": expected a shape of whole sizes ≥ 0: got [${
          shape.join(", ")
        }]`,
      );
    }
    const filled = bytes instanceof Uint8Array ? bytes.length : end - start;
    if (filled !== end - start) {
      throw wrongLength(name, dtype, shape, end - start, filled);
    }
    header.set(name, { dtype, shape, data_offsets: [start, end] });
  }
  const json = new TextEncoder().encode(
    JSON.stringify(Object.fromEntries(header)),
  );
  const prefix = new Uint8Array(8 + Math.ceil(json.length / 8) * 8).fill(0x20);
  new DataView(prefix.buffer)
    .setBigUint64(0, BigInt(prefix.length - 8), true);
  prefix.set(json, 8);
  return streamTensors(prefix, sorted);
}

async function* streamTensors(
  prefix: Uint8Array,
  tensors: readonly TensorToWrite[],
): AsyncGenerator<Uint8Array> {
  yield prefix;
  for (const { name, dtype, shape, bytes } of tensors) {
    if (bytes instanceof Uint8Array) {
      yield bytes;
      continue;
    }
    const length = storedBytes(dtype, shape);
    let filled = 0;
    for await (const chunk of bytes()) {
      filled += chunk.length;
      if (filled > length) break;
      yield chunk;
    }
    if (filled !== length) {
      throw wrongLength(name, dtype, shape, length, filled);
    }
  }
}

function wrongLength(
  name: string,
  dtype: string,
  shape: readonly number[],
  expected: number,
  got: number,
): RangeError {
  return new RangeError(
    `Cannot write tensor "${name}": expected ${expected} bytes for ${dtype}[${
      shape.join(", ")
    }]: got ${got}`,
  );
}
