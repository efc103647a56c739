/**
 * Writes residual shards; `residual_shard.ts` reads them.
 * @module
 */
import { ByteWriter, ParquetWriter } from "hyparquet-writer";
import { checkJson } from "./check_json.ts";
import {
  BINARY_COLUMN,
  firstNonFinite,
  Header,
  HEADER_KEY,
  LABELS,
  type ResidualHeader,
  type ResidualRows,
} from "./residual_shard.ts";

/** Rows with everything that is written. */
export type LabeledResidualRows = Required<ResidualRows>;

/** A shard as the manifest of its folder lists it. */
export interface ShardEntry {
  /** File name in the folder. */
  readonly file: string;
  /** Number of rows. */
  readonly n_rows: number;
  /** Length of the file. */
  readonly bytes: number;
  /** SHA-256 of the file, in hexadecimal. */
  readonly sha256: string;
}

/** Rows that are decoded at once; 32 MB for vectors of 4096. */
const ROW_GROUP_ROWS = 4096;

/** Builds one shard in memory, row group by row group; the caller decides when it is large enough. */
export class ResidualShardWriter {
  readonly #header: ResidualHeader;
  readonly #bytes = new ByteWriter();
  readonly #parquet: ParquetWriter;
  /** The row group that is being filled. */
  readonly #rows: Uint16Array<ArrayBuffer>;
  readonly #labels: Int32Array[];
  #nPending = 0;
  #nRows = 0;

  /** Starts a shard with this header. */
  constructor(header: ResidualHeader) {
    checkJson(Header, header, "residual header");
    this.#header = header;
    this.#parquet = new ParquetWriter({
      writer: this.#bytes,
      codec: "UNCOMPRESSED",
      statistics: false,
      schema: [
        { name: "root", num_children: 1 + LABELS.length },
        {
          name: BINARY_COLUMN,
          type: "BYTE_ARRAY",
          repetition_type: "REQUIRED",
        },
        ...LABELS.map((name) => ({
          name,
          type: "INT32" as const,
          repetition_type: "REQUIRED" as const,
        })),
      ],
      kvMetadata: [{ key: HEADER_KEY, value: JSON.stringify(header) }],
    });
    this.#rows = new Uint16Array(ROW_GROUP_ROWS * header.d_model);
    this.#labels = LABELS.map(() => new Int32Array(ROW_GROUP_ROWS));
  }

  /** Number of rows so far. */
  get n_rows(): number {
    return this.#nRows;
  }

  /** Length so far, in bytes, without the footer. */
  get byteLength(): number {
    const labelBytes = 4 * LABELS.length;
    // Each binary value is preceded by its length in 4 bytes.
    const rowBytes = 2 * this.#header.d_model + 4 + labelBytes;
    return this.#bytes.offset + this.#nPending * rowBytes;
  }

  /**
   * Appends rows; they are copied.
   * @throws {TypeError} If the arrays do not have n_rows rows of the header's d_model.
   * @throws {RangeError} If a value is not finite: names its document and position.
   */
  add(batch: LabeledResidualRows): void {
    const { n_rows, rows, token_ids, positions, documents } = batch;
    const { d_model } = this.#header;
    const labels = [token_ids, positions, documents];
    if (
      batch.d_model !== d_model || rows.length !== n_rows * d_model ||
      labels.some((label) => label.length !== n_rows)
    ) {
      throw new TypeError(
        `Cannot write residuals: expected bf16[${n_rows}, ${d_model}] and ${n_rows} labels: got ${rows.length} values of d_model ${batch.d_model} and ${
          labels.map((label) => label.length).join(", ")
        } labels`,
      );
    }
    const bad = firstNonFinite(rows);
    if (bad >= 0) {
      const row = Math.floor(bad / d_model);
      throw new RangeError(
        `Cannot write residuals: expected finite values: got bits 0x${
          rows[bad]!.toString(16)
        } at ${this.#header.hookPoint}, document ${documents[row]}, position ${
          positions[row]
        }`,
      );
    }
    for (let start = 0; start < n_rows;) {
      const n = Math.min(n_rows - start, ROW_GROUP_ROWS - this.#nPending);
      const end = start + n;
      this.#rows.set(
        rows.subarray(start * d_model, end * d_model),
        this.#nPending * d_model,
      );
      for (const [i, label] of this.#labels.entries()) {
        label.set(labels[i]!.subarray(start, end), this.#nPending);
      }
      this.#nPending += n;
      this.#nRows += n;
      start = end;
      if (this.#nPending === ROW_GROUP_ROWS) this.#writeGroup();
    }
  }

  /**
   * Ends the shard.
   * @returns The bytes of the file, and what the manifest says of it.
   * @throws {RangeError} If there is no row.
   */
  async finish(
    file: string,
  ): Promise<{ bytes: Uint8Array<ArrayBuffer>; shard: ShardEntry }> {
    if (this.#nRows === 0) {
      throw new RangeError(`Cannot write "${file}": expected rows: got none`);
    }
    if (this.#nPending > 0) this.#writeGroup();
    this.#parquet.finish();
    const bytes = this.#bytes.getBytes();
    const digest = await crypto.subtle.digest("SHA-256", bytes);
    const shard: ShardEntry = {
      file,
      n_rows: this.#nRows,
      bytes: bytes.length,
      sha256: new Uint8Array(digest).toHex(),
    };
    return { bytes, shard };
  }

  #writeGroup(): void {
    const rowBytes = 2 * this.#header.d_model;
    const residual = Array.from(
      { length: this.#nPending },
      (_, i) => new Uint8Array(this.#rows.buffer, i * rowBytes, rowBytes),
    );
    // PLAIN spares the search for repeated values, of which there are none.
    const plain = { encoding: "PLAIN", offsetIndex: false } as const;
    this.#parquet.write({
      rowGroupSize: ROW_GROUP_ROWS,
      columnData: [
        { name: BINARY_COLUMN, data: residual, ...plain },
        ...LABELS.map((name, i) => ({
          name,
          data: this.#labels[i]!.subarray(0, this.#nPending),
          ...plain,
        })),
      ],
    });
    this.#nPending = 0;
  }
}
