/**
 * Parquet files by column and row group, over any `Source`. Only the footer
 * and the row group that is read are in memory.
 * @module
 */
import {
  type AsyncBuffer,
  type FileMetaData,
  parquetMetadataAsync,
  type ParquetScan,
  parquetScan,
  type ParquetType,
} from "hyparquet";
import { compressors } from "hyparquet-compressors";
import type { Source } from "./source.ts";

/** A run of rows that is read and decoded as one. */
export interface RowGroup {
  /** Index of its first row in the file. */
  readonly start: number;
  /** Number of rows. */
  readonly n_rows: number;
}

/** Footers are held whole; a longer one is no file of ours or of Hugging Face. */
const MAX_FOOTER_BYTES = 256 * 2 ** 20;

const MAGIC = "PAR1";

/** An open parquet file. Texts and other byte strings come as bytes: the reader decides what they are. */
export class ParquetFile {
  /** What errors call it. */
  readonly name: string;
  /** Names of the top-level columns. */
  readonly columns: readonly string[];
  /** The row groups, in order. */
  readonly rowGroups: readonly RowGroup[];
  /** Number of rows of all groups. */
  readonly n_rows: number;
  /** The texts that the writer attached. */
  readonly keyValues: ReadonlyMap<string, string>;
  readonly #scan: ParquetScan;

  private constructor(
    name: string,
    scan: ParquetScan,
    rowGroups: readonly RowGroup[],
  ) {
    const { schema, key_value_metadata = [] } = scan.metadata;
    this.name = name;
    this.columns = topLevelColumns(schema);
    this.rowGroups = rowGroups;
    this.n_rows = rowGroups.reduce((sum, group) => sum + group.n_rows, 0);
    this.keyValues = new Map(
      key_value_metadata.map(({ key, value }) => [key, value ?? ""]),
    );
    this.#scan = scan;
  }

  /**
   * Reads and checks the footer.
   * @throws {SyntaxError} If it is no parquet file, or its footer does not fit it.
   */
  static async open(source: Source): Promise<ParquetFile> {
    await checkFooter(source);
    const file: AsyncBuffer = {
      byteLength: source.byteLength,
      slice: async (start, end = source.byteLength) =>
        (await source.read(start, end)).buffer,
    };
    return await told(source.name, async () => {
      const metadata = await parquetMetadataAsync(file, { geoparquet: false });
      const rowGroups = checkRowGroups(source, metadata);
      const scan = await parquetScan({
        file,
        metadata,
        compressors,
        utf8: false,
        parsers: { stringFromBytes: (bytes: Uint8Array): unknown => bytes },
        geoparquet: false,
        useOffsetIndex: false,
      });
      return new ParquetFile(source.name, scan, rowGroups);
    });
  }

  /**
   * Whether a column is stored in the plainest way, as our writer does: a value
   * of this type in every row, neither compressed nor encoded.
   */
  isPlain(column: string, type: ParquetType): boolean {
    const { schema, row_groups } = this.#scan.metadata;
    const element = schema.find(({ name }) => name === column);
    const chunks = row_groups.flatMap(({ columns }) =>
      columns.filter(({ meta_data }) => meta_data?.path_in_schema[0] === column)
    );
    return element?.repetition_type === "REQUIRED" && element.type === type &&
      chunks.length === row_groups.length &&
      chunks.every(({ meta_data }) =>
        meta_data?.type === type && meta_data.codec === "UNCOMPRESSED" &&
        meta_data.encodings.every((encoding) => encoding === "PLAIN")
      );
  }

  /**
   * One column of one row group: a value a row, of whatever type the column has.
   * @throws {SyntaxError} If its pages are damaged, or do not hold a value for every row.
   */
  async read(
    column: string,
    group: number,
  ): Promise<ArrayLike<unknown>> {
    const { start, n_rows } = this.rowGroups[group]!;
    const values: ArrayLike<unknown> = await told(
      this.name,
      () =>
        this.#scan.readColumn({
          column,
          rowStart: start,
          rowEnd: start + n_rows,
        }),
    );
    if (values.length === n_rows) return values;
    throw new SyntaxError(
      `Cannot read "${this.name}": expected ${n_rows} values of column "${column}" in row group ${group}: got ${values.length}: the file is damaged: fetch it again`,
    );
  }
}

async function checkFooter(source: Source): Promise<void> {
  const { name, byteLength } = source;
  const refuse = (got: string): SyntaxError =>
    new SyntaxError(
      `Cannot read "${name}": expected a parquet file: got ${got}: it is truncated or of another format: fetch it again`,
    );
  if (byteLength < 12) throw refuse(`${byteLength} bytes`);
  const tail = await source.read(byteLength - 8, byteLength);
  if (String.fromCharCode(...tail.subarray(4)) !== MAGIC) {
    throw refuse(`no ${MAGIC} at its end`);
  }
  const footerBytes = new DataView(tail.buffer).getUint32(0, true);
  const limit = Math.min(byteLength - 12, MAX_FOOTER_BYTES);
  if (footerBytes > limit) {
    throw refuse(`a footer of ${footerBytes} bytes where ${limit} can be`);
  }
}

/** Row groups whose columns lie inside the file. */
function checkRowGroups(source: Source, metadata: FileMetaData): RowGroup[] {
  const rowGroups: RowGroup[] = [];
  let start = 0;
  for (const { num_rows, columns } of metadata.row_groups) {
    const n_rows = Number(num_rows);
    const valid = Number.isSafeInteger(start + n_rows) && n_rows >= 0;
    for (const { meta_data, file_path } of columns) {
      if (!meta_data || file_path) {
        throw new RangeError("expected columns in the file itself");
      }
      const first = Number(
        meta_data.dictionary_page_offset ?? meta_data.data_page_offset,
      );
      const end = first + Number(meta_data.total_compressed_size);
      if (!(valid && first >= 4 && end >= first && end <= source.byteLength)) {
        throw new RangeError(
          `expected column "${
            meta_data.path_in_schema.join(".")
          }" inside [4, ${source.byteLength}): got ${n_rows} rows at [${first}, ${end})`,
        );
      }
    }
    if (n_rows > 0) rowGroups.push({ start, n_rows });
    start += n_rows;
  }
  if (start !== Number(metadata.num_rows)) {
    throw new RangeError(
      `expected ${metadata.num_rows} rows: got ${start} in its row groups`,
    );
  }
  return rowGroups;
}

/** The schema is a tree in depth-first order under a root. */
function topLevelColumns(schema: FileMetaData["schema"]): string[] {
  const columns: string[] = [];
  let nested = 0;
  for (const { name, num_children = 0 } of schema.slice(1)) {
    if (nested === 0) columns.push(name);
    else nested--;
    nested += num_children;
  }
  return columns;
}

/** Runs a reader that does not name files; its failure names the file in one line. */
async function told<T>(name: string, read: () => Promise<T>): Promise<T> {
  try {
    return await read();
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new SyntaxError(
      `Cannot read "${name}": ${
        reason.replace(/\s+/g, " ")
      }: the file is damaged: fetch it again`,
      { cause },
    );
  }
}
