/**
 * Residual shards: vectors of a residual stream in a parquet file, one row a
 * token. Ours hold bf16 rows as binary with the ids of their tokens; those of
 * open-concept-steering (lists of uint16, as Hugging Face `datasets` writes them) are read too.
 * @module
 */
import { decodeBinary, decodeLists } from "./fixed_width.ts";
import { type ColumnPages, ParquetFile, type RowGroup } from "./parquet.ts";
import {
  checkColumns,
  LABELS,
  readHeader,
  type ResidualHeader,
} from "./residual_header.ts";
import { BINARY_COLUMN, LIST_COLUMN } from "./residual_pages.ts";
import type { Source } from "./source.ts";

export type { ResidualHeader };

/** Vectors with the tokens that they belong to. */
export interface ResidualRows {
  /** Number of rows. */
  readonly n_rows: number;
  /** Elements of a row. */
  readonly d_model: number;
  /** Bits of bf16 `[n_rows, d_model]`. */
  readonly rows: Uint16Array<ArrayBuffer>;
  /** Token of each row; absent in shards that do not record it. */
  readonly token_ids?: Int32Array;
  /** Position of that token in its context, from 0; absent likewise. */
  readonly positions?: Int32Array;
  /** Index of the document in its corpus, from 0; absent likewise. */
  readonly documents?: Int32Array;
}

/** Bytes of bf16 in a row group, which is read whole. */
const MAX_GROUP_BYTES = 2 ** 30;
/** Where rows have more bytes than this, they have at most as many times those of their pages as vectors of models can. */
const SMALL_GROUP_BYTES = 64 * 2 ** 20;
const MAX_GROUP_RATIO = 1024;

/** An open shard. One row group at a time is in memory. */
export class ResidualShard {
  /** What errors call it. */
  readonly name: string;
  /** What the shard says of itself; undefined if it is not ours. */
  readonly header: ResidualHeader | undefined;
  /** Number of rows. */
  readonly n_rows: number;
  /** The runs of rows that `read` gives, in order. */
  readonly rowGroups: readonly RowGroup[];
  readonly #file: ParquetFile;
  readonly #isBinary: boolean;
  readonly #hasLabels: boolean;
  /** Elements of a row; known with the first row group where there is no header. */
  #d_model: number | undefined;

  private constructor(
    file: ParquetFile,
    header: ResidualHeader | undefined,
    d_model: number | undefined,
  ) {
    this.#isBinary = !file.columns.includes(LIST_COLUMN);
    this.#hasLabels = LABELS.every((name) => file.columns.includes(name));
    this.#d_model = header?.d_model ?? d_model;
    this.name = file.name;
    this.header = header;
    this.n_rows = file.n_rows;
    this.rowGroups = file.rowGroups;
    this.#file = file;
  }

  /**
   * Reads and checks the footer.
   * @param options.d_model Elements that a row must have, for shards that do not say it; those of the first row group when absent.
   * @throws {SyntaxError} If it is no parquet file, damaged, or holds no residuals.
   */
  static async open(
    source: Source,
    { d_model }: { readonly d_model?: number } = {},
  ): Promise<ResidualShard> {
    const file = await ParquetFile.open(source);
    const header = readHeader(file);
    checkColumns(file, header);
    return new ResidualShard(file, header, d_model);
  }

  /**
   * The rows of one row group, and what they belong to.
   * @throws {SyntaxError} If the file is damaged or its rows are not of one length.
   * @throws {RangeError} If a value is not finite: names the row.
   */
  async read(group: number): Promise<ResidualRows> {
    const { n_rows } = this.rowGroups[group]!;
    const rows = await this.rows(group);
    const d_model = rows.length / n_rows;
    if (!this.#hasLabels) return { n_rows, d_model, rows };
    return {
      n_rows,
      d_model,
      rows,
      token_ids: await this.#labels("token_id", group),
      positions: await this.#labels("position", group),
      documents: await this.#labels("document", group),
    };
  }

  /**
   * The bare rows of one row group: bits of bf16 `[n_rows, d_model]`, at the start of a buffer that may be longer.
   * @param options.keepBad Whether rows that are not finite are given, too.
   * @throws {SyntaxError} If the file is damaged or its rows are not of one length.
   * @throws {RangeError} If a value is not finite and bad rows are not kept: names the row.
   */
  async rows(
    group: number,
    { keepBad = false }: { readonly keepBad?: boolean } = {},
  ): Promise<Uint16Array<ArrayBuffer>> {
    const { start, n_rows } = this.rowGroups[group]!;
    const values = this.#isBinary
      ? await this.#binaryRows(group, this.#d_model!)
      : await this.#listRows(group);
    this.#d_model ??= values.length / n_rows;
    if (values.length !== n_rows * this.#d_model) {
      throw new SyntaxError(
        `Cannot read "${this.name}": expected rows of ${this.#d_model} values: got ${
          values.length / n_rows
        } in row group ${group}: collect it again`,
      );
    }
    const bad = keepBad ? -1 : firstNonFinite(values);
    if (bad < 0) return values;
    throw new RangeError(
      `Cannot read "${this.name}": expected finite values: got bits 0x${
        values[bad]!.toString(16)
      } in row ${
        start + Math.floor(bad * n_rows / values.length)
      }: collect it again`,
    );
  }

  /** The token of each row of one row group; undefined in shards that do not record it. */
  async tokenIds(group: number): Promise<Int32Array | undefined> {
    return this.#hasLabels ? await this.#labels("token_id", group) : undefined;
  }

  /** All rows, row group by row group. */
  async *batches(): AsyncGenerator<ResidualRows> {
    for (const group of this.rowGroups.keys()) yield await this.read(group);
  }

  async #binaryRows(
    group: number,
    d_model: number,
  ): Promise<Uint16Array<ArrayBuffer>> {
    const { decoded, values } = await this.#file.decode(
      BINARY_COLUMN,
      group,
      (pages) => {
        this.#checkGroup(2 * d_model * pages.n_values, pages);
        return decodeBinary(pages, 2 * d_model);
      },
    );
    if (decoded) return decoded;
    const bits = new Uint16Array(values.length * d_model);
    const bytes = new Uint8Array(bits.buffer);
    for (let i = 0; i < values.length; i++) {
      const row = values[i];
      if (!(row instanceof Uint8Array && row.length === 2 * d_model)) {
        throw this.#badRow(group, i, `${2 * d_model} bytes`);
      }
      bytes.set(row, i * 2 * d_model);
    }
    return bits;
  }

  async #listRows(group: number): Promise<Uint16Array<ArrayBuffer>> {
    const { decoded, values: lists } = await this.#file.decode(
      LIST_COLUMN,
      group,
      (pages: ColumnPages, n_rows) => {
        this.#checkGroup(2 * pages.n_values, pages);
        return decodeLists(pages, n_rows);
      },
    );
    if (decoded) return decoded;
    const first = lists[0];
    const d_model = Array.isArray(first) ? first.length : 0;
    const bits = new Uint16Array(lists.length * d_model);
    for (let i = 0; i < lists.length; i++) {
      const list: unknown = lists[i];
      if (!Array.isArray(list) || list.length !== d_model || d_model === 0) {
        throw this.#badRow(group, i, `a list of ${d_model || "some"} values`);
      }
      for (let j = 0; j < d_model; j++) {
        const value: unknown = list[j];
        bits[i * d_model + j] = value as number;
        if (bits[i * d_model + j] !== value) {
          throw this.#badRow(group, i, "values of 16 bits");
        }
      }
    }
    return bits;
  }

  async #labels(column: string, group: number): Promise<Int32Array> {
    const values = await this.#file.read(column, group);
    if (values instanceof Int32Array) return values;
    return Int32Array.from(values, (value, i) => {
      if (typeof value === "number") return value;
      throw this.#badRow(group, i, `a number in column "${column}"`);
    });
  }

  /** Refuses rows of so many bytes before anything is allocated for them. */
  #checkGroup(n_bytes: number, { pages }: ColumnPages): void {
    const stored = pages.reduce((sum, { body }) => sum + body.length, 0);
    const most = Math.min(
      MAX_GROUP_BYTES,
      Math.max(SMALL_GROUP_BYTES, MAX_GROUP_RATIO * stored),
    );
    if (n_bytes <= most) return;
    throw new RangeError(
      `Cannot read "${this.name}": expected at most ${most} bytes of rows in a row group, which is read whole: got ${n_bytes} in ${stored} of the file: write it with smaller row groups`,
    );
  }

  #badRow(group: number, i: number, expected: string): SyntaxError {
    return new SyntaxError(
      `Cannot read "${this.name}": expected ${expected} in row ${
        this.rowGroups[group]!.start + i
      }: got something else: collect it again`,
    );
  }
}

/** Index of the first infinity or NaN among bf16 bits, or -1. */
export function firstNonFinite(bits: Uint16Array): number {
  if (bits.length === 0) return -1;
  // Two values at once: adding 1 to an exponent of ones carries into the bit above it.
  const from = bits.byteOffset % 4 === 0 ? 0 : 1;
  const words = new Uint32Array(
    bits.buffer,
    bits.byteOffset + 2 * from,
    Math.max(0, bits.length - from) >> 1,
  );
  let carries = 0;
  for (let i = 0; i < words.length; i++) {
    carries |= (words[i]! & 0x7f807f80) + 0x00800080;
  }
  const isBad = (value: number): boolean => (value & 0x7f80) === 0x7f80;
  const isFinite = (carries & 0x80008000) === 0 &&
    !isBad(bits[0] ?? 0) && !isBad(bits.at(-1) ?? 0);
  return isFinite ? -1 : bits.findIndex(isBad);
}
