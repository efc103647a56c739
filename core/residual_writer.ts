/**
 * Writes residual shards; `residual_shard.ts` reads them.
 * @module
 */
import type { SchemaElement } from "hyparquet";
import { checkJson } from "./check_json.ts";
import {
  dataPageHeader,
  ParquetChunks,
  type WrittenChunk,
} from "./parquet_chunks.ts";
import { type ResidualLayout, rowCode, RowPages } from "./residual_pages.ts";
import {
  Header,
  HEADER_KEY,
  LABELS,
  type ResidualHeader,
} from "./residual_header.ts";
import { firstNonFinite, type ResidualRows } from "./residual_shard.ts";

/** Rows with everything that is written. */
export type LabeledResidualRows = Required<ResidualRows>;

/** What a new shard says of itself; how many rows it has is known at its end. */
export type NewResidualHeader =
  & Omit<ResidualHeader, "shape" | "scale">
  & Partial<Pick<ResidualHeader, "scale">>;

/** Rows that are decoded at once at most. */
const ROW_GROUP_ROWS = 4096;
/** Bytes of bf16 that are decoded at once at most, unless a row alone is longer. */
const ROW_GROUP_BYTES = 64 * 2 ** 20;

/** Builds one shard in memory, row group by row group; the caller decides when it is large enough. */
export class ResidualShardWriter {
  readonly #header: NewResidualHeader;
  readonly #code: ReturnType<typeof rowCode>;
  readonly #chunks = new ParquetChunks();
  /** The row group that is being filled. */
  readonly #pages: RowPages;
  readonly #labels: Int32Array<ArrayBuffer>[];
  readonly #groupRows: number;
  #nPending = 0;

  /**
   * Starts a shard with this header.
   * @param options.layout How rows are stored; `binary` when absent.
   * @throws {SyntaxError} If a field of the header is wrong: names it.
   */
  constructor(
    header: NewResidualHeader,
    { layout = "binary" }: { readonly layout?: ResidualLayout } = {},
  ) {
    checkJson(Header, header, "residual header");
    const { d_model } = header;
    this.#header = header;
    this.#code = rowCode(layout, d_model);
    this.#pages = new RowPages(this.#code, d_model);
    const most = Math.floor(ROW_GROUP_BYTES / (2 * d_model));
    this.#groupRows = Math.max(1, Math.min(ROW_GROUP_ROWS, most));
    this.#labels = LABELS.map(() => new Int32Array(this.#groupRows));
  }

  /** Number of rows so far. */
  get n_rows(): number {
    return this.#chunks.n_rows + this.#nPending;
  }

  /** Length so far, in bytes, without the footer and the headers of the pages that are being filled. */
  get byteLength(): number {
    const rowBytes = this.#code.rowBytes + 4 * LABELS.length;
    return this.#chunks.byteLength + this.#nPending * rowBytes;
  }

  /**
   * Appends rows; they are copied.
   * @throws {TypeError} If the arrays do not have n_rows rows of the header's d_model.
   * @throws {RangeError} If a value is not finite: names its document and position.
   */
  add(batch: LabeledResidualRows): void {
    this.#check(batch);
    const { n_rows, rows, token_ids, positions, documents } = batch;
    const { d_model } = this.#header;
    const labels = [token_ids, positions, documents];
    for (let start = 0; start < n_rows;) {
      const n = Math.min(n_rows - start, this.#groupRows - this.#nPending);
      const end = start + n;
      this.#pages.add(rows.subarray(start * d_model, end * d_model));
      for (const [i, label] of this.#labels.entries()) {
        label.set(labels[i]!.subarray(start, end), this.#nPending);
      }
      this.#nPending += n;
      start = end;
      if (this.#nPending === this.#groupRows) this.#endGroup();
    }
  }

  /**
   * Ends the shard.
   * @returns The file, in chunks that follow each other.
   * @throws {RangeError} If there is no row.
   */
  finish(): Iterable<Uint8Array<ArrayBuffer>> {
    if (this.n_rows === 0) {
      throw new RangeError("Cannot write residuals: expected rows: got none");
    }
    if (this.#nPending > 0) this.#endGroup();
    const { scale = 1, d_model } = this.#header;
    const header: ResidualHeader = {
      ...this.#header,
      shape: [this.n_rows, d_model],
      scale,
    };
    const schema: SchemaElement[] = [
      { name: "root", num_children: 1 + LABELS.length },
      ...this.#code.schema,
      ...LABELS.map((name) => ({
        name,
        type: "INT32" as const,
        repetition_type: "REQUIRED" as const,
      })),
    ];
    const keyValue = { key: HEADER_KEY, value: JSON.stringify(header) };
    return this.#chunks.finish(schema, [keyValue]);
  }

  #check(
    { n_rows, d_model, rows, token_ids, positions, documents }:
      LabeledResidualRows,
  ): void {
    const wanted = this.#header.d_model;
    const labels = [token_ids, positions, documents];
    if (
      d_model !== wanted || rows.length !== n_rows * wanted ||
      labels.some((label) => label.length !== n_rows)
    ) {
      throw new TypeError(
        `Cannot write residuals: expected bf16[${n_rows}, ${wanted}] and ${n_rows} labels: got ${rows.length} values of d_model ${d_model} and ${
          labels.map((label) => label.length).join(", ")
        } labels`,
      );
    }
    const bad = firstNonFinite(rows);
    if (bad < 0) return;
    const row = Math.floor(bad / wanted);
    throw new RangeError(
      `Cannot write residuals: expected finite values: got bits 0x${
        rows[bad]!.toString(16)
      } at ${this.#header.hookPoint}, document ${documents[row]}, position ${
        positions[row]
      }`,
    );
  }

  #endGroup(): void {
    const n = this.#nPending;
    const { column, rowValues } = this.#code;
    const columns: WrittenChunk[] = [{
      column,
      n_values: n * rowValues,
      pages: this.#pages.take(),
    }];
    for (const [i, name] of LABELS.entries()) {
      const header = dataPageHeader(n, 4 * n);
      const page = new Uint8Array(header.length + 4 * n);
      page.set(header);
      page.set(
        new Uint8Array(this.#labels[i]!.buffer, 0, 4 * n),
        header.length,
      );
      columns.push({
        column: { path: [name], type: "INT32" },
        n_values: n,
        pages: [page],
      });
    }
    this.#chunks.addRowGroup(n, columns);
    this.#nPending = 0;
  }
}
