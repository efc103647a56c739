/**
 * Bytes of gzip files, as they come: of one member or of many, as `cat` and bgzip make them.
 * `DecompressionStream` takes one member only.
 * @module
 */
import { Gunzip } from "fflate";
import type { Source } from "./source.ts";
import { chunksOf } from "./text_lines.ts";

/** Deflate makes at most about 1,000 times as much of it, which is all that is held. */
const PIECE_BYTES = 2 ** 15;
/** CRC-32 and length, behind each member. */
const TRAILER_BYTES = 8;

/**
 * What a gzip file holds.
 * @throws {SyntaxError} If it is none, or damaged or cut off: names the file.
 */
export async function* gunzip(source: Source): AsyncGenerator<Uint8Array> {
  const members = new Members(source.name);
  for await (const chunk of chunksOf(source)) {
    for (let at = 0; at < chunk.length; at += PIECE_BYTES) {
      yield* members.push(chunk.subarray(at, at + PIECE_BYTES));
    }
  }
  members.end();
}

/** Inflates, and compares what comes out with what is written behind each member. */
class Members {
  readonly #file: string;
  readonly #gunzip: Gunzip;
  #inflated: Uint8Array[] = [];
  #crc = 0;
  #length = 0;
  /** The last compressed bytes, and the place after them. */
  #recent = new Uint8Array(0);
  #end = 0;

  constructor(file: string) {
    this.#file = file;
    this.#gunzip = new Gunzip((bytes) => {
      if (bytes.length === 0) return;
      this.#crc = crc32(bytes, this.#crc);
      this.#length += bytes.length;
      this.#inflated.push(bytes);
    });
    this.#gunzip.onmember = (start) => this.#check(start);
  }

  push(piece: Uint8Array<ArrayBuffer>): Uint8Array[] {
    const recent = new Uint8Array(
      Math.min(this.#recent.length, PIECE_BYTES) + piece.length,
    );
    recent.set(this.#recent.subarray(-PIECE_BYTES));
    recent.set(piece, recent.length - piece.length);
    this.#recent = recent;
    this.#end += piece.length;
    this.#inflate(piece, false);
    return this.#inflated.splice(0);
  }

  /** Checks that the file is whole. */
  end(): void {
    if (this.#end === 0) throw this.#damaged("got no bytes");
    this.#inflate(new Uint8Array(0), true);
    this.#check(this.#end);
  }

  #inflate(piece: Uint8Array, isLast: boolean): void {
    try {
      this.#gunzip.push(piece, isLast);
    } catch (cause) {
      if (cause instanceof SyntaxError) throw cause;
      const reason = cause instanceof Error ? cause.message : String(cause);
      throw this.#damaged(reason, cause);
    }
  }

  /** Checks the member that ends at a place of the file. */
  #check(end: number): void {
    const last = this.#recent.length - (this.#end - end);
    const trailer = this.#recent.slice(Math.max(0, last - TRAILER_BYTES), last);
    const view = new DataView(trailer.buffer);
    if (
      trailer.length < TRAILER_BYTES ||
      view.getUint32(0, true) !== this.#crc ||
      view.getUint32(4, true) !== this.#length % 2 ** 32
    ) {
      throw this.#damaged("its checksum is not that of its content");
    }
    this.#crc = 0;
    this.#length = 0;
  }

  #damaged(reason: string, cause?: unknown): SyntaxError {
    return new SyntaxError(
      `Cannot read "${this.#file}": expected whole gzip data: ${reason}: the file is damaged or cut off: fetch it again`,
      { cause },
    );
  }
}

/** Eight tables of CRC-32 (reversed polynomial 0xEDB88320), for eight bytes at a time: u32 `[8, 256]`. */
const CRC_TABLES = crcTables();

function crcTables(): Uint32Array {
  const tables = new Uint32Array(8 * 256);
  for (let byte = 0; byte < 256; byte++) {
    let crc = byte;
    for (let bit = 0; bit < 8; bit++) {
      crc = crc & 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1;
    }
    tables[byte] = crc;
  }
  for (let i = 256; i < tables.length; i++) {
    const before = tables[i - 256]!;
    tables[i] = (before >>> 8) ^ tables[before & 255]!;
  }
  return tables;
}

/** CRC-32 of bytes that follow those of another. */
export function crc32(bytes: Uint8Array, before = 0): number {
  const t = CRC_TABLES;
  let crc = ~before;
  let i = 0;
  for (const end = bytes.length - 7; i < end; i += 8) {
    crc ^= bytes[i]! | bytes[i + 1]! << 8 | bytes[i + 2]! << 16 |
      bytes[i + 3]! << 24;
    crc = t[0x700 | crc & 255]! ^ t[0x600 | crc >>> 8 & 255]! ^
      t[0x500 | crc >>> 16 & 255]! ^ t[0x400 | crc >>> 24]! ^
      t[0x300 | bytes[i + 4]!]! ^ t[0x200 | bytes[i + 5]!]! ^
      t[0x100 | bytes[i + 6]!]! ^ t[bytes[i + 7]!]!;
  }
  for (; i < bytes.length; i++) {
    crc = (crc >>> 8) ^ t[(crc ^ bytes[i]!) & 255]!;
  }
  return ~crc >>> 0;
}
