/**
 * What parquet files are written of: pages with their headers, and the footer
 * that says where they are. Values are PLAIN and not compressed.
 * @module
 */
import type {
  ColumnChunk,
  KeyValue,
  ParquetType,
  RowGroup,
  SchemaElement,
} from "hyparquet";
import { ByteWriter, ParquetWriter } from "hyparquet-writer";

/** A column as its pages are written. */
export interface WrittenColumn {
  /** Names from the top of the schema down to the values. */
  readonly path: readonly string[];
  /** How each value is stored. */
  readonly type: ParquetType;
}

/** The pages of one column in one row group, before the file says where they are. */
export interface WrittenChunk {
  readonly column: WrittenColumn;
  /** Values of all pages. */
  readonly n_values: number;
  /** Pages with their headers, in order. */
  readonly pages: readonly Uint8Array<ArrayBuffer>[];
}

/** Every file begins and ends with it. */
const MAGIC: Uint8Array<ArrayBuffer> = new TextEncoder().encode("PAR1");

/** Places of the names in the format's enumerations. */
const PLAIN = 0;
const RLE = 3;

/** Type bytes of fields in Thrift's compact protocol: 32-bit integer and structure, and the end of one. */
const I32 = 5;
const STRUCT = 12;
const STOP = 0;

/**
 * The header of a data page (version 1) of PLAIN values, not compressed.
 * @param n_values Values of the page.
 * @param n_bytes Bytes that follow the header: levels and values.
 */
export function dataPageHeader(
  n_values: number,
  n_bytes: number,
): Uint8Array<ArrayBuffer> {
  const header = new ByteWriter(64);
  const field = (skipped: number, value: number): void => {
    header.appendUint8(skipped << 4 | I32);
    header.appendZigZag(value);
  };
  field(1, 0); // type: a data page
  field(1, n_bytes);
  field(1, n_bytes); // compressed
  header.appendUint8(2 << 4 | STRUCT); // data_page_header
  field(1, n_values);
  field(1, PLAIN);
  field(1, RLE); // definition levels
  field(1, RLE); // repetition levels
  header.appendUint8(STOP);
  header.appendUint8(STOP);
  return new Uint8Array(header.getBuffer());
}

/** A parquet file as the chunks that follow each other in it; nothing is copied. */
export class ParquetChunks {
  readonly #chunks: Uint8Array<ArrayBuffer>[] = [MAGIC];
  readonly #rowGroups: RowGroup[] = [];
  #nRows = 0;
  #byteLength = MAGIC.length;

  /** Rows of all groups. */
  get n_rows(): number {
    return this.#nRows;
  }

  /** Length so far, in bytes, without the footer. */
  get byteLength(): number {
    return this.#byteLength;
  }

  /** Appends a row group; its columns are in the order of the schema. */
  addRowGroup(n_rows: number, columns: readonly WrittenChunk[]): void {
    const start = this.#byteLength;
    const written = columns.map(({ column, n_values, pages }): ColumnChunk => {
      const at = this.#byteLength;
      for (const page of pages) this.#byteLength += page.length;
      this.#chunks.push(...pages);
      const size = BigInt(this.#byteLength - at);
      return {
        file_offset: 0n,
        meta_data: {
          type: column.type,
          // Levels are runs; columns that are not nested have none.
          encodings: column.path.length > 1 ? ["PLAIN", "RLE"] : ["PLAIN"],
          path_in_schema: [...column.path],
          codec: "UNCOMPRESSED",
          num_values: BigInt(n_values),
          total_uncompressed_size: size,
          total_compressed_size: size,
          data_page_offset: BigInt(at),
        },
      };
    });
    const size = BigInt(this.#byteLength - start);
    this.#rowGroups.push({
      columns: written,
      total_byte_size: size,
      num_rows: BigInt(n_rows),
      total_compressed_size: size,
    });
    this.#nRows += n_rows;
  }

  /** The whole file: all row groups, then the footer. */
  finish(
    schema: SchemaElement[],
    kvMetadata: KeyValue[],
  ): Uint8Array<ArrayBuffer>[] {
    const writer = new ByteWriter();
    const footer = new ParquetWriter({ writer, schema, kvMetadata });
    footer.row_groups = this.#rowGroups;
    footer.num_rows = BigInt(this.#nRows);
    footer.finish();
    // A writer puts the beginning of a file first; this one has it already.
    const bytes = new Uint8Array(writer.getBuffer(), MAGIC.length);
    return [...this.#chunks, bytes];
  }
}
