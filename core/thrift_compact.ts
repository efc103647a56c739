/**
 * Structures in Thrift's compact protocol, in which parquet says what a page
 * is. Only numbers and nested structures are kept: page headers need no more.
 * @module
 */

/** Numbers and structures by the number of their field; truth is 1 or 0. */
export type ThriftFields = ReadonlyMap<number, number | ThriftFields>;

/** Types of fields, as the protocol numbers them. */
const STOP = 0;
const TRUE = 1;
const FALSE = 2;
const BYTE = 3;
const I64 = 6;
const DOUBLE = 7;
const BINARY = 8;
const LIST = 9;
const SET = 10;
const STRUCT = 12;

/** Structures deeper than any of parquet's. */
const MAX_DEPTH = 16;

/**
 * Reads one structure.
 * @param at Where it begins.
 * @returns Its fields, and where it has ended.
 * @throws {RangeError} If it ends behind the bytes, or is none.
 */
export function readThrift(
  bytes: Uint8Array,
  at: number,
): { fields: ThriftFields; end: number } {
  const reader = new ThriftReader(bytes, at);
  const fields = reader.struct(0);
  return { fields, end: reader.at };
}

class ThriftReader {
  readonly #bytes: Uint8Array;
  at: number;

  constructor(bytes: Uint8Array, at: number) {
    this.#bytes = bytes;
    this.at = at;
  }

  struct(depth: number): ThriftFields {
    if (depth > MAX_DEPTH) throw new RangeError("a page header is too deep");
    const fields = new Map<number, number | ThriftFields>();
    for (let id = 0;;) {
      const byte = this.#byte();
      const type = byte & 15;
      if (type === STOP) return fields;
      id = byte >> 4 ? id + (byte >> 4) : this.#zigzag();
      const value = type === TRUE || type === FALSE
        ? Number(type === TRUE)
        : this.#value(type, depth);
      if (value !== undefined) fields.set(id, value);
    }
  }

  #value(type: number, depth: number): number | ThriftFields | undefined {
    if (type === BYTE) return this.#byte();
    if (type > BYTE && type <= I64) return this.#zigzag();
    if (type === DOUBLE) return this.#skip(8);
    if (type === BINARY) return this.#skip(this.#varint());
    if (type === STRUCT) return this.struct(depth + 1);
    if (type !== LIST && type !== SET) {
      throw new RangeError(`a page header has a field of type ${type}`);
    }
    const byte = this.#byte();
    const n = byte >> 4 === 15 ? this.#varint() : byte >> 4;
    const elementType = byte & 15;
    // Every element has a byte at least, so a false count ends with the bytes.
    for (let i = 0; i < n; i++) {
      if (elementType <= FALSE) this.#byte();
      else this.#value(elementType, depth + 1);
    }
    return undefined;
  }

  #byte(): number {
    const byte = this.#bytes[this.at++];
    if (byte !== undefined) return byte;
    throw new RangeError("a page header is cut off");
  }

  #skip(n: number): undefined {
    this.at += n;
    if (this.at > this.#bytes.length) {
      throw new RangeError("a page header is cut off");
    }
  }

  #varint(): number {
    let value = 0;
    for (let factor = 1; factor < 2 ** 64; factor *= 128) {
      const byte = this.#byte();
      value += (byte & 127) * factor;
      if (byte < 128) return value;
    }
    throw new RangeError("a page header has a number that does not end");
  }

  #zigzag(): number {
    const value = this.#varint();
    return value % 2 === 0 ? value / 2 : -(value + 1) / 2;
  }
}
