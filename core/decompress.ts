/**
 * Decompression that cannot be made to take more memory than the page says it
 * has, whatever the compressed bytes claim.
 * @module
 */
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
  Object.entries({ ...bounded, ZSTD: unzstd }).map(([codec, decompress]) => [
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

/** Zstandard, block by block, so that blocks beyond the end are never made. */
function unzstd(input: Uint8Array, n_bytes: number): Uint8Array {
  checkZstdFrame(input, n_bytes);
  const bytes = new Uint8Array(n_bytes);
  let filled = 0;
  const stream = new Decompress((block) => {
    if (filled + block.length > n_bytes) {
      throw new RangeError(`expected a page of ${n_bytes} bytes: got more`);
    }
    bytes.set(block, filled);
    filled += block.length;
  });
  stream.push(input, true);
  return bytes.subarray(0, filled);
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
