/**
 * Lines of large text files, without the file in memory.
 * @module
 */
import type { Source } from "./source.ts";

/** One line of a file. */
export interface Line {
  /**
   * Its text, without the line break.
   * @throws {SyntaxError} If it is not UTF-8: names the file and the line.
   */
  readonly text: string;
  /** Its number, from 1. */
  readonly number: number;
  /** Whether it has nothing but ASCII white space; tells without decoding it. */
  readonly isBlank: boolean;
}

const CHUNK_BYTES = 2 ** 20;
/** A file without line breaks must not end up in memory whole. */
const MAX_LINE_BYTES = 64 * 2 ** 20;
const LINE_FEED = 10;
const CARRIAGE_RETURN = 13;

/** The bytes of a source in order, 1 MiB at a time. */
export async function* chunksOf(
  source: Source,
): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  for (let offset = 0; offset < source.byteLength; offset += CHUNK_BYTES) {
    const end = Math.min(offset + CHUNK_BYTES, source.byteLength);
    yield await source.read(offset, end);
  }
}

/**
 * The lines of a UTF-8 file, with Unix or Windows line breaks; a byte order mark is dropped.
 * @param chunks Its bytes, where they are not those of the source itself, as of a compressed file.
 * @throws {RangeError} If a line has more than 64 MiB.
 */
export async function* readLines(
  source: Source,
  chunks: AsyncIterable<Uint8Array> = chunksOf(source),
): AsyncGenerator<Line> {
  // What a line has in chunks before the current one.
  let begun: Uint8Array[] = [];
  let begunBytes = 0;
  let number = 1;
  for await (const chunk of chunks) {
    let start = 0;
    for (;;) {
      const lineEnd = chunk.indexOf(LINE_FEED, start);
      if (lineEnd < 0) break;
      begun.push(chunk.subarray(start, lineEnd));
      yield new BytesLine(source.name, begun, number++);
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
  if (begunBytes > 0) yield new BytesLine(source.name, begun, number);
}

class BytesLine implements Line {
  readonly number: number;
  readonly #file: string;
  readonly #bytes: Uint8Array;

  constructor(file: string, pieces: readonly Uint8Array[], number: number) {
    const bytes = pieces.length === 1 ? pieces[0]! : joined(pieces);
    this.number = number;
    this.#file = file;
    this.#bytes = bytes.at(-1) === CARRIAGE_RETURN
      ? bytes.subarray(0, -1)
      : bytes;
  }

  get isBlank(): boolean {
    return this.#bytes.every((byte) =>
      byte === 32 || (9 <= byte && byte <= CARRIAGE_RETURN)
    );
  }

  get text(): string {
    // A mark elsewhere than at the start of the file is text.
    const decoder = this.number > 1 ? INNER_LINES : FIRST_LINE;
    try {
      return decoder.decode(this.#bytes);
    } catch (cause) {
      throw new SyntaxError(
        `Cannot read "${this.#file}" line ${this.number}: expected UTF-8: got other bytes: convert the file to UTF-8`,
        { cause },
      );
    }
  }
}

const FIRST_LINE = new TextDecoder("utf-8", { fatal: true });
const INNER_LINES = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

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
