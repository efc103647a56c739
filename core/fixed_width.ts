/**
 * Columns whose rows all have the same width, straight from their pages into
 * one array: lists of uint16, and binary values. Of anything else they say
 * that they do not know it.
 * @module
 */
import {
  type ColumnPages,
  ENCODING,
  type LeafColumn,
  type PageParts,
  partsOf,
} from "./column_pages.ts";
import { allAre, listsBeginEvery, readRuns } from "./level_runs.ts";

/** Values of 16 bits by their index. It is as long as indices can be, and `n` says how much of it is meant. */
interface Dictionary {
  readonly values: Uint16Array;
  readonly n: number;
}

/** Values of at least as many bytes stay in the memory of their pages; headers and lengths are little of it. */
const LONG_ROW_BYTES = 1024;

/** Widest index of a dictionary that can hold every value of 16 bits. */
const MAX_INDEX_BITS = 16;

/**
 * Lists of one width without anything absent, as bits `[n_rows, width]`.
 * @returns Undefined where they are encoded in a way that is not known here, or are not of one width.
 * @throws {RangeError} If a page is damaged.
 */
export function decodeLists(
  { leaf, n_values, pages }: ColumnPages,
  n_rows: number,
): Uint16Array<ArrayBuffer> | undefined {
  const width = n_values / n_rows;
  const isKnown = leaf.isUint16 && leaf.maxRepetition === 1 &&
    Number.isInteger(width) && width > 0;
  if (!isKnown) return undefined;
  const bits = new Uint16Array(n_values);
  const aligned = new Aligned();
  let dictionary: Dictionary | undefined;
  let filled = 0;
  for (const page of pages) {
    if (!page.hasRuns) return undefined;
    const parts = partsOf(page, leaf);
    if (page.kind === "dictionary") {
      if (page.encoding > ENCODING.PLAIN_DICTIONARY) return undefined;
      dictionary = dictionaryOf(parts.values, page.n_values, aligned);
      continue;
    }
    const { n_values: n, encoding } = page;
    if (!isFull(parts, leaf, n)) return undefined;
    if (!listsBeginEvery(width, parts.repetition, n, filled)) return undefined;
    const part = bits.subarray(filled, filled + n);
    if (encoding === ENCODING.PLAIN) {
      plainInto(part, parts.values, aligned);
    } else if (
      encoding !== ENCODING.RLE_DICTIONARY &&
        encoding !== ENCODING.PLAIN_DICTIONARY ||
      !dictionary ||
      !indexedInto(part, parts.values, dictionary)
    ) return undefined;
    filled += n;
  }
  return bits;
}

/**
 * Binary values of one length without anything absent, one after the other. Long ones are moved together where
 * they are, in the bytes of the column, since fresh memory costs more than the rest: then the pages are gone.
 * @param rowBytes That length, an even number.
 * @returns Undefined where they are encoded in a way that is not known here.
 * @throws {RangeError} If a page is damaged, or a value is absent or of another length.
 */
export function decodeBinary(
  { leaf, n_values, pages }: ColumnPages,
  rowBytes: number,
): Uint16Array<ArrayBuffer> | undefined {
  if (leaf.type !== "BYTE_ARRAY" || leaf.maxRepetition > 0) return undefined;
  const isKnown = pages.every(({ kind, encoding, hasRuns }) =>
    kind === "data" && encoding === ENCODING.PLAIN && hasRuns
  );
  if (!isKnown || pages.length === 0) return undefined;
  const isShort = pages.some(({ n_bytes, n_values }) =>
    n_bytes < n_values * (4 + rowBytes)
  );
  // What the pages have bounds what is allocated for it.
  if (isShort) throw new RangeError(`expected values of ${rowBytes} bytes`);
  const isInPlace = rowBytes >= LONG_ROW_BYTES &&
    pages.every(({ codec }) => codec === "UNCOMPRESSED");
  const buffer = isInPlace
    ? pages[0]!.body.buffer
    : new ArrayBuffer(n_values * rowBytes);
  const bytes = new Uint8Array(buffer);
  let filled = 0;
  for (const page of pages) {
    const parts = partsOf(page, leaf);
    if (!isFull(parts, leaf, page.n_values)) {
      throw new RangeError("expected a value in every row: got one without");
    }
    moveValues(bytes, filled, parts.values, page.n_values, rowBytes);
    filled += page.n_values * rowBytes;
  }
  return new Uint16Array(buffer, 0, filled / 2);
}

/** Moves n values, each behind its length in 4 bytes, to where they follow each other. */
function moveValues(
  target: Uint8Array<ArrayBuffer>,
  start: number,
  values: Uint8Array,
  n: number,
  rowBytes: number,
): void {
  const view = new DataView(values.buffer, values.byteOffset, values.length);
  for (let i = 0, at = 0; i < n; i++) {
    const length = at + 4 <= values.length ? view.getUint32(at, true) : 0;
    if (length !== rowBytes || at + 4 + length > values.length) {
      throw new RangeError(
        `expected values of ${rowBytes} bytes: got ${length} in value ${i} of a page`,
      );
    }
    target.set(values.subarray(at + 4, at + 4 + length), start + i * rowBytes);
    at += 4 + length;
  }
}

/** Whether every value of a page is there. */
function isFull(
  { definition }: PageParts,
  leaf: LeafColumn,
  n: number,
): boolean {
  return leaf.maxDefinition === 0 || allAre(definition, leaf.maxDefinition, n);
}

/** Bytes as words of 32 bits; those that lie between words are copied to one place, again and again. */
class Aligned {
  #copy: Uint8Array<ArrayBuffer> = new Uint8Array(0);

  /** The first n words; they are good until others are asked for. */
  words(bytes: Uint8Array, n: number): Uint32Array {
    if (bytes.byteOffset % 4 === 0) {
      return new Uint32Array(bytes.buffer, bytes.byteOffset, n);
    }
    if (this.#copy.length < 4 * n) this.#copy = new Uint8Array(4 * n);
    this.#copy.set(bytes.subarray(0, 4 * n));
    return new Uint32Array(this.#copy.buffer, 0, n);
  }
}

/** Values of 32 bits, of which the lower half is meant and the upper one is 0. */
function plainInto(
  bits: Uint16Array,
  values: Uint8Array,
  aligned: Aligned,
): void {
  const n = bits.length;
  if (values.length < 4 * n) {
    throw new RangeError(
      `expected ${n} values of 4 bytes in a page: got ${values.length} bytes`,
    );
  }
  const words = aligned.words(values, n);
  let all = 0;
  for (let i = 0; i < n; i++) {
    const word = words[i]!;
    all |= word;
    bits[i] = word;
  }
  if (all >>> 16 === 0) return;
  throw new RangeError("expected values of 16 bits in a page: got larger ones");
}

function dictionaryOf(
  values: Uint8Array,
  n: number,
  aligned: Aligned,
): Dictionary | undefined {
  if (n > 2 ** MAX_INDEX_BITS) return undefined;
  const table = new Uint16Array(2 ** MAX_INDEX_BITS);
  plainInto(table.subarray(0, n), values, aligned);
  return { values: table, n };
}

/** Indices into a dictionary: a byte that says their width, then runs. Gives whether the width is known here. */
function indexedInto(
  bits: Uint16Array,
  bytes: Uint8Array,
  { values, n: nKnown }: Dictionary,
): boolean {
  const width = bytes[0] ?? 0;
  if (width > MAX_INDEX_BITS) return false;
  let largest = 0;
  if (width === 0) {
    bits.fill(values[0]!);
  } else {
    const runs = bytes.subarray(1);
    readRuns(runs, width, bits.length, {
      repeated(index, first, n): void {
        if (index > largest) largest = index;
        bits.fill(values[index & 0xffff]!, first, first + n);
      },
      packed(at, first, n): void {
        const most = unpackInto(bits, first, n, runs, at, width, values);
        if (most > largest) largest = most;
      },
    });
  }
  if (largest < nKnown) return true;
  throw new RangeError(
    `expected indices below ${nKnown}, the values of the dictionary: got ${largest}`,
  );
}

/** Looks packed indices up; gives the largest of them. */
function unpackInto(
  bits: Uint16Array,
  first: number,
  n: number,
  bytes: Uint8Array,
  start: number,
  width: number,
  values: Uint16Array,
): number {
  const mask = 2 ** width - 1;
  let largest = 0;
  let at = start;
  let word = 0; // of which `nBits` are not used yet
  let nBits = 0;
  for (let i = first; i < first + n; i++) {
    while (nBits < width) {
      word |= bytes[at++]! << nBits;
      nBits += 8;
    }
    const index = word & mask;
    word >>>= width;
    nBits -= width;
    if (index > largest) largest = index;
    bits[i] = values[index]!;
  }
  return largest;
}
