/**
 * How rows of a residual stream lie in the pages of a parquet file: as binary
 * values, or as lists of uint16.
 * @module
 */
import type { SchemaElement } from "hyparquet";
import { dataPageHeader, type WrittenColumn } from "./parquet_chunks.ts";

/**
 * How a shard holds its rows. `binary`: one value of 2 · d_model bytes a row, as small and fast as the rows are.
 * `list`: `list<uint16>`, which tools open as numbers, stored in 32 bits each.
 */
export type ResidualLayout = "binary" | "list";

/** Column of the rows in binary shards. */
export const BINARY_COLUMN = "residual";
/** Column of the rows where they are lists. */
export const LIST_COLUMN = "residual_stream";

/** Length of a page's values, in bytes, unless a row alone is longer. */
const PAGE_BYTES = 2 ** 20;
/** Longest header of a page, in bytes; a multiple of 8, so that values after it are aligned. */
const MAX_HEADER_BYTES = 64;

/** Levels of an element that is there, in a list that is there: two optional parts and a repeated one. */
const DEFINED = 3;

/** What is particular to a layout. */
interface RowCode {
  readonly column: WrittenColumn;
  /** The column as the schema of the file says it. */
  readonly schema: readonly SchemaElement[];
  /** Values of a row, as the format counts them. */
  readonly rowValues: number;
  /** Bytes of a row in a page, without its levels. */
  readonly rowBytes: number;
  /** Most bytes of the levels before the values of a page. */
  levelBytes(n_rows: number): number;
  /** Those levels, at most as many bytes. */
  levels(n_rows: number): Uint8Array;
  /** Puts bits of bf16 `[n, d_model]` where the rows from `row` on are in the values of a page. */
  put(values: Uint8Array<ArrayBuffer>, row: number, bits: Uint16Array): void;
}

/** The code of a layout. */
export function rowCode(layout: ResidualLayout, d_model: number): RowCode {
  return layout === "binary" ? binaryCode(d_model) : listCode(d_model);
}

function binaryCode(d_model: number): RowCode {
  const none = new Uint8Array(0);
  const stride = d_model + 2; // in 16 bits: the length before each value has 4 bytes
  return {
    column: { path: [BINARY_COLUMN], type: "BYTE_ARRAY" },
    schema: [{
      name: BINARY_COLUMN,
      type: "BYTE_ARRAY",
      repetition_type: "REQUIRED",
    }],
    rowValues: 1,
    rowBytes: 2 * stride,
    levelBytes: () => 0,
    levels: () => none,
    put(values, row, bits): void {
      const { buffer, byteOffset, length } = values;
      const words = new Uint16Array(buffer, byteOffset, length / 2);
      let at = row * stride;
      for (let start = 0; start < bits.length; start += d_model) {
        words[at] = 2 * d_model;
        words[at + 1] = 2 * d_model >>> 16;
        words.set(bits.subarray(start, start + d_model), at + 2);
        at += stride;
      }
    },
  };
}

function listCode(d_model: number): RowCode {
  const list = "list";
  const element = "element";
  const rowLevels = [...run(1, 0), ...(d_model > 1 ? run(d_model - 1, 1) : [])];
  const levelBytes = (n_rows: number): number =>
    4 + n_rows * rowLevels.length + 4 + run(n_rows * d_model, DEFINED).length;
  return {
    column: { path: [LIST_COLUMN, list, element], type: "INT32" },
    // Lists and elements may be absent by the schema, as in the files of other tools, and never are.
    schema: [
      {
        name: LIST_COLUMN,
        repetition_type: "OPTIONAL",
        num_children: 1,
        converted_type: "LIST",
      },
      { name: list, repetition_type: "REPEATED", num_children: 1 },
      {
        name: element,
        type: "INT32",
        repetition_type: "OPTIONAL",
        converted_type: "UINT_16",
      },
    ],
    rowValues: d_model,
    rowBytes: 4 * d_model,
    levelBytes,
    levels(n_rows): Uint8Array {
      const bytes = new Uint8Array(levelBytes(n_rows));
      const view = new DataView(bytes.buffer);
      const nRepetition = n_rows * rowLevels.length;
      const definition = run(n_rows * d_model, DEFINED);
      view.setUint32(0, nRepetition, true);
      for (let row = 0; row < n_rows; row++) {
        bytes.set(rowLevels, 4 + row * rowLevels.length);
      }
      view.setUint32(4 + nRepetition, definition.length, true);
      bytes.set(definition, 8 + nRepetition);
      return bytes;
    },
    put(values, row, bits): void {
      const { buffer, byteOffset, length } = values;
      new Uint32Array(buffer, byteOffset, length / 4)
        .set(bits, row * d_model);
    },
  };
}

/** A level that is repeated n times, as the hybrid of runs and packed bits has it: 2n as a varint, then the level. */
function run(n: number, level: number): number[] {
  const bytes: number[] = [];
  let left = 2 * n;
  for (; left > 127; left = Math.floor(left / 128)) {
    bytes.push(left % 128 + 128);
  }
  return [...bytes, left, level];
}

/** Fills pages with rows. Each page is one array, so that writing it copies nothing. */
export class RowPages {
  readonly #code: RowCode;
  readonly #d_model: number;
  /** Rows of a page. */
  readonly #capacity: number;
  /** Where the values of a page begin: header and levels end there. */
  readonly #valuesAt: number;
  #pages: Uint8Array<ArrayBuffer>[] = [];
  #values: Uint8Array<ArrayBuffer> | undefined;
  #nInPage = 0;

  /** No page yet. */
  constructor(code: RowCode, d_model: number) {
    this.#code = code;
    this.#d_model = d_model;
    this.#capacity = Math.max(1, Math.floor(PAGE_BYTES / code.rowBytes));
    const levelBytes = Math.ceil(code.levelBytes(this.#capacity) / 8) * 8;
    this.#valuesAt = MAX_HEADER_BYTES + levelBytes;
  }

  /** Appends bits of bf16 `[n, d_model]`; they are copied. */
  add(bits: Uint16Array): void {
    const n = bits.length / this.#d_model;
    for (let row = 0; row < n;) {
      this.#values ??= new Uint8Array(
        new ArrayBuffer(this.#valuesAt + this.#capacity * this.#code.rowBytes),
        this.#valuesAt,
      );
      const end = Math.min(n, row + this.#capacity - this.#nInPage);
      const part = bits.subarray(row * this.#d_model, end * this.#d_model);
      this.#code.put(this.#values, this.#nInPage, part);
      this.#nInPage += end - row;
      row = end;
      if (this.#nInPage === this.#capacity) this.#closePage();
    }
  }

  /** Takes the pages of all rows that were added, the last one perhaps a short one. */
  take(): Uint8Array<ArrayBuffer>[] {
    if (this.#nInPage > 0) this.#closePage();
    const pages = this.#pages;
    this.#pages = [];
    return pages;
  }

  #closePage(): void {
    const { rowValues, rowBytes } = this.#code;
    const n = this.#nInPage;
    const { buffer } = this.#values!;
    const levels = this.#code.levels(n);
    const nBytes = n * rowBytes;
    const header = dataPageHeader(n * rowValues, levels.length + nBytes);
    const levelsAt = this.#valuesAt - levels.length;
    const start = levelsAt - header.length;
    const page = new Uint8Array(
      buffer,
      start,
      this.#valuesAt + nBytes - start,
    );
    page.set(header);
    page.set(levels, header.length);
    this.#pages.push(page);
    this.#values = undefined;
    this.#nInPage = 0;
  }
}
