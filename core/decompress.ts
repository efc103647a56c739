/**
 * Decompression that cannot be made to take more memory than the page says it
 * has, whatever the compressed bytes claim.
 * @module
 */
import { Gunzip } from "fflate";
import { Decompress } from "fzstd";
import type { CompressionCodec } from "hyparquet";
import { compressors as theirs } from "hyparquet-compressors";

/** Bytes of a page at most once it is decompressed; writers make pages of about 1 MB. */
const MAX_PAGE_BYTES = 256 * 2 ** 20;

/** How many times smaller each format can make bytes at most; of others it is not known. */
const MAX_RATIO: Partial<Record<CompressionCodec, number>> = {
  SNAPPY: 22,
  GZIP: 1032,
  LZ4: 256,
  LZ4_RAW: 256,
};
/** Bytes that a ratio does not hold for: headers. */
const RATIO_SLACK = 64;

/** Bytes that a frame of Zstandard may look back, if it is longer than the page. */
const MIN_ZSTD_WINDOW = 8 * 2 ** 20;

/** Takes compressed bytes and how long they become. */
type Decompressor = (input: Uint8Array, n_bytes: number) => Uint8Array;

/** The one for Brotli takes as much memory as the bytes claim, whatever it is asked for. */
const { BROTLI: _, ...bounded } = theirs;

/** By codec: gives as many bytes as it is asked for, or throws. */
export const DECOMPRESSORS: Readonly<
  Partial<Record<CompressionCodec, Decompressor>>
> = Object.fromEntries(
  Object.entries(
    { ...bounded, GZIP: gunzip, LZ4: unlz4, LZ4_RAW: unlz4Raw, ZSTD: unzstd },
  ).map(([codec, decompress]) => [
    codec,
    (input: Uint8Array, n_bytes: number): Uint8Array => {
      checkSize(codec as CompressionCodec, input.length, n_bytes);
      const bytes = n_bytes === 0
        ? new Uint8Array(0)
        : decompress(input, n_bytes);
      if (bytes.length === n_bytes) return bytes;
      throw new RangeError(
        `expected a page of ${n_bytes} bytes: got ${bytes.length}`,
      );
    },
  ]),
);

function checkSize(
  codec: CompressionCodec,
  n_compressed: number,
  n_bytes: number,
): void {
  const most = Math.min(
    MAX_PAGE_BYTES,
    n_compressed * (MAX_RATIO[codec] ?? Infinity) + RATIO_SLACK,
  );
  if (n_bytes >= 0 && n_bytes <= most) return;
  throw new RangeError(
    `expected at most ${most} bytes in a page of ${n_compressed} that are compressed: got ${n_bytes}`,
  );
}

/** Deflate makes at most about 1,000 times as much of it, which is all that is held beside the page. */
const GZIP_PIECE_BYTES = 2 ** 15;

/** GZIP, of one member or many. The other package's gives zeros for what is missing. */
function gunzip(input: Uint8Array, n_bytes: number): Uint8Array {
  const page = new PageBytes(n_bytes);
  const stream = new Gunzip((piece) => page.add(piece));
  for (let at = 0; at < input.length; at += GZIP_PIECE_BYTES) {
    const end = at + GZIP_PIECE_BYTES;
    stream.push(input.subarray(at, end), end >= input.length);
  }
  return page.filled();
}

/** A block of LZ4. The package gives zeros for what is missing, so that the length is counted first. */
function unlz4Raw(input: Uint8Array, n_bytes: number): Uint8Array {
  checkLength(lz4Length(input), n_bytes);
  return theirs.LZ4_RAW!(input, n_bytes);
}

/** LZ4 as Hadoop writes it: blocks, each behind the lengths of what it becomes and of itself; or a bare block. */
function unlz4(input: Uint8Array, n_bytes: number): Uint8Array {
  const view = new DataView(input.buffer, input.byteOffset, input.length);
  let at = 0;
  let total = 0;
  while (at + 8 < input.length) {
    const [length, n] = [view.getUint32(at), view.getUint32(at + 4)];
    const block = input.subarray(at + 8, at + 8 + n);
    if (block.length !== n || lz4Length(block) !== length) break;
    at += 8 + n;
    total += length;
  }
  checkLength(at === input.length ? total : lz4Length(input), n_bytes);
  return theirs.LZ4!(input, n_bytes);
}

function checkLength(length: number, n_bytes: number): void {
  if (length === n_bytes) return;
  throw new RangeError(
    `expected a page of ${n_bytes} bytes: got ${
      Number.isNaN(length) ? "one that is cut off" : length
    }`,
  );
}

/** How many bytes a block of LZ4 becomes; NaN if it is cut off. */
function lz4Length(input: Uint8Array): number {
  let at = 0;
  let length = 0;
  // 15 says that more follows, byte by byte, until one is below 255.
  const whole = (n: number): number => {
    for (let more = n === 15 ? 255 : 0; more === 255; n += more) {
      more = input[at++] ?? NaN;
    }
    return n;
  };
  while (at < input.length) {
    const token = input[at++]!;
    const nLiterals = whole(token >> 4);
    at += nLiterals;
    length += nLiterals;
    if (at === input.length) break; // the last sequence repeats nothing
    at += 2; // how far back
    length += whole(token & 15) + 4;
    if (!(at <= input.length)) return NaN;
  }
  return length;
}

/** A page that is filled piece by piece. */
class PageBytes {
  readonly #bytes: Uint8Array<ArrayBuffer>;
  #n = 0;

  constructor(n_bytes: number) {
    this.#bytes = new Uint8Array(n_bytes);
  }

  /** @throws {RangeError} If it would be longer than the page. */
  add(piece: Uint8Array): void {
    const n_bytes = this.#bytes.length;
    if (this.#n + piece.length > n_bytes) {
      throw new RangeError(`expected a page of ${n_bytes} bytes: got more`);
    }
    this.#bytes.set(piece, this.#n);
    this.#n += piece.length;
  }

  /** What was added. */
  filled(): Uint8Array {
    return this.#bytes.subarray(0, this.#n);
  }
}

/** Zstandard, block by block, so that blocks beyond the end are never made. */
function unzstd(input: Uint8Array, n_bytes: number): Uint8Array {
  checkZstdFrame(input, n_bytes);
  const page = new PageBytes(n_bytes);
  const stream = new Decompress((block) => page.add(block));
  stream.push(input, true);
  return page.filled();
}

/** A frame says how far it looks back, and as much is allocated; a second frame would say it again. */
function checkZstdFrame(input: Uint8Array, n_bytes: number): void {
  const byte = (at: number): number => input[at] ?? 0;
  const flags = byte(4);
  const isSingle = (flags & 32) !== 0;
  const window = 2 ** (10 + (byte(5) >> 3)) * (1 + (byte(5) & 7) / 8);
  const sizeBytes = flags >> 6 ? 1 << (flags >> 6) : Number(isSingle);
  let at = (isSingle ? 5 : 6) + [0, 1, 2, 4][flags & 3]!;
  let size = flags >> 6 === 1 ? 256 : 0;
  for (let i = 0; i < sizeBytes; i++) size += byte(at++) * 256 ** i;
  const needed = isSingle ? size : window;
  if (needed > Math.max(n_bytes, MIN_ZSTD_WINDOW)) {
    throw new RangeError(
      `expected a page of ${n_bytes} bytes: got a window of ${needed}`,
    );
  }
  for (let isLast = false; !isLast && at < input.length;) {
    const header = byte(at) | byte(at + 1) << 8 | byte(at + 2) << 16;
    isLast = (header & 1) === 1;
    // A block of one repeated byte has that one alone.
    at += 3 + ((header >> 1 & 3) === 1 ? 1 : header >> 3);
  }
  if (at + (flags & 4) >= input.length) return;
  throw new RangeError("expected a page of one frame: got more");
}
