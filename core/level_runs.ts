/**
 * Runs and packed bits: how parquet encodes levels and the indices into a
 * dictionary. A run is one value many times; packed values come in eights.
 * @module
 */

/** What is done with the values, in order; there are n of them from `first` on. */
export interface RunReader {
  /** A value that is repeated. */
  repeated(value: number, first: number, n: number): void;
  /** Values of `width` bits each, packed from the byte `at` on. */
  packed(at: number, first: number, n: number): void;
}

/**
 * Reads n values of `width` bits, 1 to 24.
 * @throws {RangeError} If the bytes have fewer, or a run goes on behind the last.
 */
export function readRuns(
  bytes: Uint8Array,
  width: number,
  n: number,
  reader: RunReader,
): void {
  const valueBytes = Math.ceil(width / 8);
  let at = 0;
  for (let first = 0; first < n;) {
    let header = 0;
    let factor = 1;
    let byte: number;
    do {
      byte = bytes[at++] ?? 0;
      header += (byte & 127) * factor;
      factor *= 128;
    } while (byte > 127 && factor < 2 ** 42);
    const isPacked = header % 2 === 1;
    const half = Math.floor(header / 2);
    const nBytes = isPacked ? half * width : valueBytes;
    const nRun = isPacked ? half * 8 : half;
    // The last eight may be padded; a run ends with the values.
    const isRight = nRun > 0 && at + nBytes <= bytes.length &&
      nRun - (n - first) < (isPacked ? 8 : 1);
    if (!isRight) {
      throw new RangeError(
        `expected ${n} encoded values: got runs of others`,
      );
    }
    const nTaken = Math.min(nRun, n - first);
    if (isPacked) reader.packed(at, first, nTaken);
    else reader.repeated(unpack(bytes, at, 0, 8 * valueBytes), first, nTaken);
    at += nBytes;
    first += nTaken;
  }
}

/** The i-th value of `width` bits from the byte `at` on. */
export function unpack(
  bytes: Uint8Array,
  at: number,
  i: number,
  width: number,
): number {
  const bit = i * width;
  const byte = at + (bit >> 3);
  const word = bytes[byte]! | bytes[byte + 1]! << 8 | bytes[byte + 2]! << 16 |
    bytes[byte + 3]! << 24;
  return (word >>> (bit & 7)) & (2 ** width - 1);
}

/**
 * Whether all of n levels are `level`, which is the highest there is.
 * @throws {RangeError} If the bytes have fewer.
 */
export function allAre(bytes: Uint8Array, level: number, n: number): boolean {
  const width = 32 - Math.clz32(level);
  let same = true;
  readRuns(bytes, width, n, {
    repeated(value): void {
      same &&= value === level;
    },
    packed(at, _, nPacked): void {
      for (let i = 0; same && i < nPacked; i++) {
        same = unpack(bytes, at, i, width) === level;
      }
    },
  });
  return same;
}

/**
 * Whether lists begin at the places that `step` divides, counted from `before`, and nowhere else: a level
 * of 0 begins a list, and 1 goes on with it.
 * @throws {RangeError} If the bytes have fewer than n levels.
 */
export function listsBeginEvery(
  step: number,
  bytes: Uint8Array,
  n: number,
  before: number,
): boolean {
  let next = Math.ceil(before / step) * step;
  let same = true;
  readRuns(bytes, 1, n, {
    repeated(value, first, nRun): void {
      const end = before + first + nRun;
      if (value === 1) {
        same &&= next >= end;
        return;
      }
      // Only lists of one element begin one after the other.
      same &&= value === 0 && next === before + first &&
        (step === 1 || nRun === 1);
      next += nRun * step;
    },
    packed(at, first, nPacked): void {
      for (let i = 0; same && i < nPacked; i++) {
        const byte = bytes[at + (i >> 3)]!;
        const place = before + first + i;
        if ((i & 7) === 0 && byte === 255 && next >= place + 8) {
          i += 7;
          continue;
        }
        const begins = (byte >> (i & 7) & 1) === 0;
        same = begins === (place === next);
        if (begins) next += step;
      }
    },
  });
  return same;
}
