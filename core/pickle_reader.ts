/**
 * The bytes of a pickle, taken from front to back: its constants, and the arguments of its steps.
 * @module
 */

/** Longer numbers do not occur, and take more than linear time. */
const MAX_NUMBER_BYTES = 32;

/** How errors of pickles end. */
export const FIX =
  "the file is damaged, or no checkpoint: fetch it from its makers";

/** A place in a pickle. Taking what is not there any more is an error. */
export class PickleReader {
  readonly #file: string;
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  #at = 0;

  /** Starts at the first byte. @param file What errors call it. */
  constructor(file: string, bytes: Uint8Array) {
    this.#file = file;
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  }

  /** Bytes taken so far. */
  get at(): number {
    return this.#at;
  }

  /** Bytes that are left. */
  get nLeft(): number {
    return this.#bytes.length - this.#at;
  }

  /** The value of a step that is a number, a text or the like, after its opcode; undefined of another step. */
  constant(step: string): unknown {
    switch (step) {
      case "N":
        return null;
      case "\x88":
        return true;
      case "\x89":
        return false;
      case "I": { // INT, of which 00 and 01 are booleans
        const text = this.line();
        return text === "00" ? false : text === "01" ? true : this.#int(text);
      }
      case "J":
        return this.#view.getInt32(this.skip(4), true);
      case "K":
        return this.u8();
      case "M":
        return this.#view.getUint16(this.skip(2), true);
      case "L": // LONG
        return this.#int(this.line().replace(/L$/, ""));
      case "\x8a": // LONG1
        return this.#long(this.u8());
      case "G": // BINFLOAT
        return this.#view.getFloat64(this.skip(8), false);
      case "X": // BINUNICODE
        return this.#text(this.u32());
      case "\x8c": // SHORT_BINUNICODE
        return this.#text(this.u8());
      case "B": // BINBYTES
        return this.#run(this.u32());
      case "C": // SHORT_BINBYTES
        return this.#run(this.u8());
      default:
        return undefined;
    }
  }

  /** Takes n bytes; where they begin. */
  skip(n: number): number {
    const start = this.#at;
    if (start + n > this.#bytes.length) throw this.broken("a part of one");
    this.#at += n;
    return start;
  }

  #run(n: number): Uint8Array {
    const start = this.skip(n);
    return this.#bytes.slice(start, start + n);
  }

  /** One byte. */
  u8(): number {
    return this.#view.getUint8(this.skip(1));
  }

  /** A number of four bytes. */
  u32(): number {
    return this.#view.getUint32(this.skip(4), true);
  }

  #text(n: number): string {
    const start = this.skip(n);
    // As Python writes them, lone surrogates are no UTF-8.
    return new TextDecoder("utf-8", { ignoreBOM: true })
      .decode(this.#bytes.subarray(start, start + n));
  }

  /** The text up to the end of the line. */
  line(): string {
    const end = this.#bytes.indexOf(0x0a, this.#at);
    if (end < 0) throw this.broken("a part of one");
    const text = this.#text(end - this.#at);
    this.skip(1);
    return text;
  }

  #int(text: string): number | bigint {
    if (text.length > MAX_NUMBER_BYTES || !/^-?\d+$/.test(text)) {
      throw this.broken(`the number ${brief(text)}`);
    }
    return narrow(BigInt(text));
  }

  /** A little-endian two's complement number. */
  #long(n: number): number | bigint {
    if (n > MAX_NUMBER_BYTES) throw this.broken(`a number of ${n} bytes`);
    const digits = this.#run(n).reverse();
    const value = digits.reduce((sum, byte) => sum * 256n + BigInt(byte), 0n);
    return narrow(BigInt.asIntN(8 * n, value));
  }

  /** The error of a pickle that is no whole one. */
  broken(got: string): SyntaxError {
    return new SyntaxError(
      `Cannot read "${this.#file}": expected a whole pickle: got ${got}: ${FIX}`,
    );
  }
}

function narrow(value: bigint): number | bigint {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
}

/** A text on one short line. */
export function brief(text: string): string {
  return JSON.stringify(text.length > 80 ? `${text.slice(0, 77)}...` : text);
}
