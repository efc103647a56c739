/**
 * The header of a safetensors file, checked as if it were hostile: nothing is
 * believed before it fits the length of the file.
 * Source: https://huggingface.co/docs/safetensors, "Format".
 * @module
 */
import type { Source } from "./source.ts";

/** Element type of a stored tensor, as safetensors spells it. */
export type StoredDtype =
  | "BOOL"
  | "U8"
  | "I8"
  | "F8_E4M3"
  | "F8_E5M2"
  | "U16"
  | "I16"
  | "F16"
  | "BF16"
  | "U32"
  | "I32"
  | "F32"
  | "U64"
  | "I64"
  | "F64";

/** Bytes of one element. */
const ELEMENT_BYTES: Readonly<Record<StoredDtype, number>> = {
  BOOL: 1,
  U8: 1,
  I8: 1,
  F8_E4M3: 1,
  F8_E5M2: 1,
  U16: 2,
  I16: 2,
  F16: 2,
  BF16: 2,
  U32: 4,
  I32: 4,
  F32: 4,
  U64: 8,
  I64: 8,
  F64: 8,
};

/** One tensor of a file. */
export interface TensorInfo {
  /** The tensor's name in the file. */
  readonly name: string;
  /** Element type. */
  readonly dtype: StoredDtype;
  /** Sizes, outermost first; empty for a scalar. */
  readonly shape: readonly number[];
  /** First byte, counted from the start of the file. */
  readonly start: number;
  /** End (exclusive), counted from the start of the file. */
  readonly end: number;
}

/** What the header says. */
export interface Header {
  /** All tensors by name, in the order of their bytes. */
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  /** The texts under `__metadata__`. */
  readonly metadata: Readonly<Record<string, string>>;
}

/** The key of the header that holds texts and no tensor. */
export const METADATA_KEY = "__metadata__";

/** The format's own limit on the header's JSON. */
const MAX_HEADER_BYTES = 100_000_000;

/** How every error of a header ends. */
const FIX = "the file is truncated, damaged or no safetensors: fetch it again";

/** The header, its entries, their shapes and offsets. */
const MAX_NESTING = 3;

/** Bytes that a tensor takes, or NaN where its dtype is unknown, its shape no shape, or the product not exact. */
export function storedBytes(dtype: string, shape: readonly number[]): number {
  if (!isStoredDtype(dtype)) return NaN;
  let n = ELEMENT_BYTES[dtype];
  for (const size of shape) {
    if (!Number.isSafeInteger(size) || size < 0) return NaN;
    n *= size;
    if (!Number.isSafeInteger(n)) return NaN;
  }
  return n;
}

/** Bytes of one element. */
export function storedElementBytes(dtype: StoredDtype): number {
  return ELEMENT_BYTES[dtype];
}

function isStoredDtype(dtype: unknown): dtype is StoredDtype {
  return typeof dtype === "string" && Object.hasOwn(ELEMENT_BYTES, dtype);
}

/**
 * Reads and checks the header.
 * @throws {SyntaxError} If it is not a JSON object of tensors, or has a key twice.
 * @throws {RangeError} If lengths, shapes or offsets do not fit each other and the file.
 */
export async function readHeader(source: Source): Promise<Header> {
  const file = source.name;
  const refuse = (expected: string): RangeError =>
    new RangeError(`Cannot read "${file}": ${expected}: ${FIX}`);
  if (source.byteLength < 8) {
    throw refuse(
      `expected a safetensors file, at least 8 bytes: got ${source.byteLength}`,
    );
  }
  const prefix = await source.read(0, 8);
  const length = new DataView(prefix.buffer).getBigUint64(0, true);
  const limit = Math.min(MAX_HEADER_BYTES, source.byteLength - 8);
  if (length > limit) {
    throw refuse(
      `expected a header of at most ${limit} bytes: got ${length}`,
    );
  }
  const dataStart = 8 + Number(length);
  const entries = parseHeader(file, await source.read(8, dataStart));
  const metadata = checkMetadata(file, entries.get(METADATA_KEY));
  entries.delete(METADATA_KEY);
  const infos = Array.from(
    entries,
    ([name, entry]) => checkEntry(file, name, entry, dataStart),
  ).sort((a, b) => a.start - b.start || a.end - b.end);
  let end = dataStart;
  for (const info of infos) {
    if (info.start !== end) {
      throw refuse(
        `tensor ${
          brief(info.name)
        } must start at byte ${end}, where the one before ends: got ${info.start}`,
      );
    }
    end = info.end;
  }
  if (end !== source.byteLength) {
    throw refuse(
      `expected ${end} bytes by its header: got ${source.byteLength}`,
    );
  }
  return { tensors: new Map(infos.map((info) => [info.name, info])), metadata };
}

function parseHeader(file: string, bytes: Uint8Array): Map<string, unknown> {
  const refuse = (got: string, cause?: unknown): SyntaxError =>
    new SyntaxError(
      `Cannot read "${file}": expected a header that is a JSON object: got ${got}: ${FIX}`,
      { cause },
    );
  let text: string;
  let json: unknown;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })
      .decode(bytes);
    json = JSON.parse(text);
  } catch (cause) {
    throw refuse("something else", cause);
  }
  if (!isObject(json)) throw refuse("another JSON value");
  const fault = hiddenFault(text);
  if (fault !== undefined) throw refuse(fault);
  return new Map(Object.entries(json));
}

function checkMetadata(file: string, json: unknown): Record<string, string> {
  const metadata: Record<string, string> = {};
  if (json === undefined) return metadata;
  for (const [key, value] of isObject(json) ? Object.entries(json) : []) {
    if (typeof value === "string") metadata[key] = value;
  }
  const n = isObject(json) ? Object.keys(json).length : -1;
  if (n === Object.keys(metadata).length) return metadata;
  throw new SyntaxError(
    `Cannot read "${file}": expected "${METADATA_KEY}" to be an object of texts: ${FIX}`,
  );
}

function checkEntry(
  file: string,
  name: string,
  entry: unknown,
  dataStart: number,
): TensorInfo {
  const subject = `Cannot read "${file}": tensor ${brief(name)}`;
  if (!isObject(entry)) {
    throw new SyntaxError(
      `${subject}: expected dtype, shape and data_offsets: ${FIX}`,
    );
  }
  const { dtype, shape, data_offsets: offsets } = entry;
  if (!isStoredDtype(dtype)) {
    const known = Object.keys(ELEMENT_BYTES).join(", ");
    throw new TypeError(
      `${subject}: expected a dtype of ${known}: got ${brief(dtype)}: ${FIX}`,
    );
  }
  if (!isSizes(shape)) {
    throw new RangeError(
      `${subject}: expected a shape of whole sizes ≥ 0: got ${
        brief(shape)
      }: ${FIX}`,
    );
  }
  const [start, end] = isSizes(offsets) ? offsets : [];
  if (
    !isSizes(offsets) || offsets.length !== 2 || start! > end!
  ) {
    throw new RangeError(
      `${subject}: expected data_offsets [start, end], start ≤ end: got ${
        brief(offsets)
      }: ${FIX}`,
    );
  }
  const n = storedBytes(dtype, shape);
  if (Number.isNaN(n)) {
    throw new RangeError(
      `${subject}: expected a shape of less than 2^53 bytes: got ${
        brief(shape)
      }: ${FIX}`,
    );
  }
  if (n !== end! - start!) {
    throw new RangeError(
      `${subject}: expected data_offsets that span ${n} bytes for ${dtype}${
        brief(shape)
      }: got ${brief(offsets)}: ${FIX}`,
    );
  }
  return {
    name,
    dtype,
    shape,
    start: dataStart + start!,
    end: dataStart + end!,
  };
}

function isObject(json: unknown): json is Record<string, unknown> {
  return typeof json === "object" && json !== null && !Array.isArray(json);
}

function isSizes(json: unknown): json is number[] {
  return Array.isArray(json) &&
    json.every((size) => Number.isSafeInteger(size) && size >= 0);
}

/** A JSON value on one short line. */
function brief(json: unknown): string {
  const text = JSON.stringify(json) ?? "nothing";
  return text.length > 80 ? `${text.slice(0, 77)}...` : text;
}

/**
 * Finds what `JSON.parse` hides in a valid JSON text: a key that one object has
 * twice (it keeps the last), and nesting that no header has. Undefined if neither.
 */
function hiddenFault(text: string): string | undefined {
  // The keys of each open object; null for an open array.
  const open: (Set<string> | null)[] = [];
  let atKey = false;
  for (let i = 0; i < text.length; i++) {
    const char = text[i];
    if (char === "{" || char === "[") {
      open.push(char === "{" ? new Set() : null);
      if (open.length > MAX_NESTING) return "deeper nesting";
      atKey = true;
    } else if (char === "}" || char === "]") open.pop();
    else if (char === ",") atKey = true;
    else if (char === '"') {
      const start = i;
      for (i++; text[i] !== '"'; i++) if (text[i] === "\\") i++;
      const keys = open.at(-1);
      if (!keys || !atKey) continue;
      const key: string = JSON.parse(text.slice(start, i + 1));
      if (keys.has(key)) return `the key ${brief(key)} twice`;
      keys.add(key);
      atKey = false;
    }
  }
  return undefined;
}
