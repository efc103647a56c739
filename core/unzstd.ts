/**
 * Bytes of zstd files, as they come: of one frame or of many.
 *
 * Frames and blocks are told apart here, and `fzstd` decodes them: it would take the memory that a damaged header asks
 * for, and compares no checksum.
 * Source: RFC 8878.
 * @module
 */
import { Decompress } from "fzstd";
import type { Source } from "./source.ts";
import { chunksOf } from "./text_lines.ts";
import { Xxh64 } from "./xxh64.ts";

/** What a frame may look back, as the zstd program has it where it is not told otherwise. */
const MAX_WINDOW_BYTES = 128 * 2 ** 20;
/** Longest header of a frame. */
const MAX_HEADER_BYTES = 18;
const BLOCK_HEADER_BYTES = 3;
const CHECKSUM_BYTES = 4;
const MAX_BLOCK_BYTES = 128 * 1024;

/**
 * What a zstd file holds.
 * @throws {SyntaxError} If it is none, or damaged or cut off: names the file.
 * @throws {RangeError} If a frame looks back more than 128 MiB, or needs a dictionary.
 */
export async function* unzstd(source: Source): AsyncGenerator<Uint8Array> {
  const bytes = new ByteQueue(chunksOf(source));
  if (source.byteLength === 0) throw damaged(source, "got no bytes");
  for (;;) {
    const head = await bytes.peek(MAX_HEADER_BYTES);
    if (head.length === 0) return;
    const skip = skippableBytes(head);
    if (skip === undefined) yield* readFrame(source, bytes, head);
    else await bytes.skip(source, skip);
  }
}

async function* readFrame(
  source: Source,
  bytes: ByteQueue,
  head: Uint8Array,
): AsyncGenerator<Uint8Array> {
  const { headerBytes, hasChecksum } = frameHeader(source, head);
  const hash = new Xxh64();
  const decoded: Uint8Array[] = [];
  const decoder = new Decompress((block) => {
    if (block.length > 0) decoded.push(block);
  });
  const decode = (piece: Uint8Array, isLast: boolean): Uint8Array[] => {
    try {
      decoder.push(piece, isLast);
    } catch (cause) {
      const reason = cause instanceof Error ? cause.message : String(cause);
      throw damaged(source, reason.replace(/\s+/g, " "), cause);
    }
    const blocks = decoded.splice(0);
    if (hasChecksum) blocks.forEach((block) => hash.update(block));
    return blocks;
  };
  yield* decode(await bytes.take(source, headerBytes), false);
  for (let isLast = false; !isLast;) {
    const header = await bytes.take(source, BLOCK_HEADER_BYTES);
    const fields = header[0]! | header[1]! << 8 | header[2]! << 16;
    isLast = (fields & 1) === 1;
    const isRun = (fields >> 1 & 3) === 1;
    const nBytes = fields >> 3;
    if (nBytes > MAX_BLOCK_BYTES) {
      throw damaged(source, `got a block of ${nBytes} bytes`);
    }
    decode(header, false);
    yield* decode(await bytes.take(source, isRun ? 1 : nBytes), false);
  }
  const checksum = await bytes.take(source, hasChecksum ? CHECKSUM_BYTES : 0);
  yield* decode(checksum, true);
  if (!hasChecksum) return;
  const want = new DataView(checksum.buffer).getUint32(0, true);
  if (want === hash.low32()) return;
  throw damaged(source, "its checksum is not that of its content");
}

/** Length of a frame that is to be skipped; undefined where it is of another kind. */
function skippableBytes(head: Uint8Array): number | undefined {
  const isSkippable = head.length >= 8 && (head[0]! & 0xf0) === 0x50 &&
    head[1] === 0x2a && head[2] === 0x4d && head[3] === 0x18;
  if (!isSkippable) return undefined;
  return 8 + new DataView(head.buffer, head.byteOffset).getUint32(4, true);
}

function frameHeader(
  source: Source,
  head: Uint8Array,
): { headerBytes: number; hasChecksum: boolean } {
  const isFrame = head[0] === 0x28 && head[1] === 0xb5 && head[2] === 0x2f &&
    head[3] === 0xfd;
  if (!isFrame || head.length < 6) throw damaged(source, "got other bytes");
  const flags = head[4]!;
  const isSingle = (flags & 0x20) !== 0;
  const idBytes = [0, 1, 2, 4][flags & 3]!;
  const sizeBytes = [isSingle ? 1 : 0, 2, 4, 8][flags >> 6]!;
  const headerBytes = 5 + (isSingle ? 0 : 1) + idBytes + sizeBytes;
  let windowBytes: number;
  if (isSingle) {
    // The window is the frame; 256 more than is written where that has two bytes.
    windowBytes = sizeBytes === 2 ? 256 : 0;
    for (let i = 0; i < sizeBytes; i++) {
      windowBytes += head[headerBytes - sizeBytes + i]! * 256 ** i;
    }
  } else {
    const base = 2 ** (10 + (head[5]! >> 3));
    windowBytes = base + base / 8 * (head[5]! & 7);
  }
  if (!(windowBytes <= MAX_WINDOW_BYTES)) {
    throw new RangeError(
      `Cannot read "${source.name}": expected frames that look back at most ${MAX_WINDOW_BYTES} bytes: got ${windowBytes}: compress it again without --ultra or --long`,
    );
  }
  if (
    head.subarray(5 + (isSingle ? 0 : 1)).subarray(0, idBytes).some(Boolean)
  ) {
    throw new RangeError(
      `Cannot read "${source.name}": expected no dictionary: got a frame that needs one: compress it again without`,
    );
  }
  return { headerBytes, hasChecksum: (flags & 4) !== 0 };
}

function damaged(
  source: Source,
  reason: string,
  cause?: unknown,
): SyntaxError {
  return new SyntaxError(
    `Cannot read "${source.name}": expected whole zstd data: ${reason}: the file is damaged or cut off: fetch it again`,
    { cause },
  );
}

/** Bytes that come in chunks and are taken in other lengths. */
class ByteQueue {
  readonly #chunks: AsyncIterator<Uint8Array<ArrayBuffer>>;
  #bytes = new Uint8Array(0);

  constructor(chunks: AsyncIterable<Uint8Array<ArrayBuffer>>) {
    this.#chunks = chunks[Symbol.asyncIterator]();
  }

  /** The next n bytes, or all that there are, which stay. */
  async peek(n: number): Promise<Uint8Array<ArrayBuffer>> {
    while (this.#bytes.length < n) {
      const { done, value } = await this.#chunks.next();
      if (done) break;
      const joined = new Uint8Array(this.#bytes.length + value.length);
      joined.set(this.#bytes);
      joined.set(value, this.#bytes.length);
      this.#bytes = joined;
    }
    return this.#bytes.subarray(0, n);
  }

  /** The next n bytes, in an array of their own. */
  async take(source: Source, n: number): Promise<Uint8Array<ArrayBuffer>> {
    const bytes = await this.peek(n);
    if (bytes.length < n) throw damaged(source, "it ends inside a frame");
    this.#bytes = this.#bytes.subarray(n);
    return bytes.slice();
  }

  /** Leaves n bytes out, without holding them. */
  async skip(source: Source, n: number): Promise<void> {
    for (let left = n; left > 0;) {
      const { length } = await this.peek(1);
      if (length === 0) throw damaged(source, "it ends inside a frame");
      const some = Math.min(left, this.#bytes.length);
      this.#bytes = this.#bytes.subarray(some);
      left -= some;
    }
  }
}
