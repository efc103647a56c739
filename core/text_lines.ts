/**
 * Lines of large text files, without the file in memory.
 * @module
 */
import type { Source } from "./source.ts";

/** One line of a file. */
export interface Line {
  /** Its text, without the line break. */
  readonly text: string;
  /** Its number, from 1. */
  readonly number: number;
}

const CHUNK_BYTES = 2 ** 20;
/** A file without line breaks must not end up in memory whole. */
const MAX_LINE_BYTES = 64 * 2 ** 20;
const LINE_FEED = 10;
const CARRIAGE_RETURN = 13;

/**
 * The lines of a UTF-8 file, with Unix or Windows line breaks; a byte order mark is dropped.
 * @throws {SyntaxError} If a line is not UTF-8: names the file and the line.
 * @throws {RangeError} If a line has more than 64 MiB.
 */
export async function* readLines(source: Source): AsyncGenerator<Line> {
  // What a line has in chunks before the current one.
  let begun: Uint8Array[] = [];
  let begunBytes = 0;
  let number = 1;
  for (let offset = 0; offset < source.byteLength; offset += CHUNK_BYTES) {
    const end = Math.min(offset + CHUNK_BYTES, source.byteLength);
    const chunk = await source.read(offset, end);
    let start = 0;
    for (;;) {
      const lineEnd = chunk.indexOf(LINE_FEED, start);
      if (lineEnd < 0) break;
      begun.push(chunk.subarray(start, lineEnd));
      yield decodeLine(source, begun, number++);
      begun = [];
      begunBytes = 0;
      start = lineEnd + 1;
    }
    begun.push(chunk.subarray(start));
    begunBytes += chunk.length - start;
    if (begunBytes > MAX_LINE_BYTES) {
      throw new RangeError(
        `Cannot read "${source.name}" line ${number}: expected at most ${MAX_LINE_BYTES} bytes: break it into lines`,
      );
    }
  }
  if (begunBytes > 0) yield decodeLine(source, begun, number);
}

function decodeLine(
  source: Source,
  pieces: readonly Uint8Array[],
  number: number,
): Line {
  let bytes = pieces.length === 1 ? pieces[0]! : joined(pieces);
  if (bytes.at(-1) === CARRIAGE_RETURN) bytes = bytes.subarray(0, -1);
  // A mark elsewhere than at the start of the file is text.
  const decoder = new TextDecoder("utf-8", {
    fatal: true,
    ignoreBOM: number > 1,
  });
  try {
    return { text: decoder.decode(bytes), number };
  } catch (cause) {
    throw new SyntaxError(
      `Cannot read "${source.name}" line ${number}: expected UTF-8: got other bytes: convert the file to UTF-8`,
      { cause },
    );
  }
}

function joined(pieces: readonly Uint8Array[]): Uint8Array {
  const length = pieces.reduce((sum, piece) => sum + piece.length, 0);
  const bytes = new Uint8Array(length);
  let offset = 0;
  for (const piece of pieces) {
    bytes.set(piece, offset);
    offset += piece.length;
  }
  return bytes;
}
