/**
 * Parquet files by column and row group, over any `Source`. Only the footer
 * and the row group that is read are in memory.
 * @module
 */
import {
  type AsyncBuffer,
  type ColumnChunk,
  type ParquetScan,
  parquetScan,
} from "hyparquet";
import { type ColumnPages, type LeafColumn, pagesOf } from "./column_pages.ts";
import { DECOMPRESSORS } from "./decompress.ts";
import {
  checkFooter,
  type Footer,
  type FooterGroup,
  rangeOf,
  readFooter,
  type RowGroup,
} from "./parquet_footer.ts";
import type { Source } from "./source.ts";

export type { ColumnPages, LeafColumn, RowGroup };

/** Bytes of a column in a row group, which are read at once. */
const MAX_CHUNK_BYTES = 2 ** 31 - 1;
/** Values of a column in a row group that are decoded into arrays of any type. */
const MAX_VALUES = 2 ** 26;
/** Bytes of such a column once it is decompressed; more only where they are at most so many times those in the file. */
const MAX_DECODED_BYTES = 2 ** 30;
const MAX_RATIO = 64;

/** A column of a row group, as it lies in the file. */
interface LoadedChunk {
  readonly start: number;
  readonly bytes: Uint8Array<ArrayBuffer>;
}

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
  readonly #source: Source;
  readonly #leaves: readonly LeafColumn[];
  readonly #groups: readonly FooterGroup[];
  readonly #scan: ParquetScan;
  /** What was read already for a reader that asks for it again. */
  readonly #loaded: Set<LoadedChunk>;

  private constructor(
    source: Source,
    { metadata, leaves, rowGroups }: Footer,
    scan: ParquetScan,
    loaded: Set<LoadedChunk>,
  ) {
    this.name = source.name;
    this.columns = [...new Set(leaves.map(({ path }) => path[0]!))];
    this.rowGroups = rowGroups.map(({ start, n_rows }) => ({ start, n_rows }));
    this.n_rows = rowGroups.reduce((sum, group) => sum + group.n_rows, 0);
    this.keyValues = new Map(
      metadata.key_value_metadata?.map(({ key, value }) => [key, value ?? ""]),
    );
    this.#source = source;
    this.#leaves = leaves;
    this.#groups = rowGroups;
    this.#scan = scan;
    this.#loaded = loaded;
  }

  /**
   * Reads and checks the footer.
   * @throws {SyntaxError} If it is no parquet file, encrypted, or its footer does not fit it.
   */
  static async open(source: Source): Promise<ParquetFile> {
    await checkFooter(source);
    const loaded = new Set<LoadedChunk>();
    const file = bufferOf(source, loaded);
    return await told(source.name, async () => {
      const footer = await readFooter(source, file);
      const scan = await parquetScan({
        file,
        metadata: footer.metadata,
        compressors: DECOMPRESSORS,
        utf8: false,
        parsers: { stringFromBytes: (bytes: Uint8Array): unknown => bytes },
        geoparquet: false,
        useOffsetIndex: false,
      });
      return new ParquetFile(source, footer, scan, loaded);
    });
  }

  /** The column of this name, if it has values of its own, or is a list of values. */
  leaf(column: string): LeafColumn | undefined {
    const found = this.#leaves.filter(({ path }) => path[0] === column);
    return found.length === 1 ? found[0] : undefined;
  }

  /**
   * One column of one row group: a value a row, of whatever type the column has.
   * @throws {SyntaxError} If its pages are damaged, or do not hold a value for every row.
   */
  async read(column: string, group: number): Promise<ArrayLike<unknown>> {
    const { values } = await this.decode(column, group, () => undefined);
    return values!;
  }

  /**
   * One column of one row group, in a form that a decoder makes of its pages, `decoded`.
   * @param decoder Gives undefined where it does not know them; then there are `values`, as `read` gives them.
   * @throws {SyntaxError} As `read`, and with the reason of an error of the decoder.
   */
  async decode<T>(
    column: string,
    group: number,
    decoder: (pages: ColumnPages, n_rows: number) => T | undefined,
  ): Promise<
    | { decoded: T; values?: undefined }
    | { decoded?: undefined; values: ArrayLike<unknown> }
  > {
    return await told(this.name, async () => {
      const chunks = await this.#load(column, group);
      const { start, n_rows } = this.#groups[group]!;
      const pages = chunks.map((chunk) => this.#pages(chunk, n_rows));
      const decoded = pages.length === 1
        ? decoder(pages[0]!, n_rows)
        : undefined;
      if (decoded !== undefined) return { decoded };
      checkDecoded(this.name, column, pages);
      for (const { loaded } of chunks) this.#loaded.add(loaded);
      try {
        const range = { column, rowStart: start, rowEnd: start + n_rows };
        const values = await this.#scan.readColumn(range) as ArrayLike<unknown>;
        if (values.length === n_rows) return { values };
        throw new RangeError(
          `expected ${n_rows} values of column "${column}" in row group ${group}: got ${values.length}`,
        );
      } finally {
        for (const { loaded } of chunks) this.#loaded.delete(loaded);
      }
    });
  }

  /** Reads what the columns under a top-level one have in a row group. */
  async #load(
    column: string,
    group: number,
  ): Promise<{ chunk: ColumnChunk; loaded: LoadedChunk }[]> {
    const chunks = this.#groups[group]!.columns.filter(({ meta_data }) =>
      meta_data!.path_in_schema[0] === column
    );
    const nLeaves =
      this.#leaves.filter(({ path }) => path[0] === column).length;
    if (nLeaves === 0 || chunks.length !== nLeaves) {
      throw new RangeError(
        `expected ${
          nLeaves || "some"
        } columns under "${column}": got ${chunks.length} in row group ${group}`,
      );
    }
    return await Promise.all(chunks.map(async (chunk) => {
      const [start, end] = rangeOf(chunk);
      if (end - start > MAX_CHUNK_BYTES) {
        throw new RangeError(
          `Cannot read "${this.name}": expected at most ${MAX_CHUNK_BYTES} bytes of column "${column}" in a row group: got ${
            end - start
          }: write it with smaller row groups`,
        );
      }
      const bytes = await readSource(this.#source, start, end);
      return { chunk, loaded: { start, bytes } };
    }));
  }

  #pages(
    { chunk, loaded }: { chunk: ColumnChunk; loaded: LoadedChunk },
    n_rows: number,
  ): ColumnPages {
    const { path_in_schema, codec, num_values, type } = chunk.meta_data!;
    const path = path_in_schema.join(".");
    if (codec !== "UNCOMPRESSED" && !DECOMPRESSORS[codec]) {
      throw new RangeError(
        `Cannot read "${this.name}": expected column "${path}" compressed with ${
          Object.keys(DECOMPRESSORS).join(", ")
        } or nothing: got ${codec}: write it with one of these`,
      );
    }
    const leaf = this.#leaves.find((leaf) => leaf.path.join(".") === path);
    const n_values = Number(num_values);
    const hasRows = leaf?.maxRepetition === 0
      ? n_values === n_rows
      : n_values >= n_rows;
    if (leaf?.type !== type || !hasRows) {
      throw new RangeError(
        `expected ${n_rows} rows of ${leaf?.type} in column "${path}": got ${n_values} values of ${type}`,
      );
    }
    return pagesOf(loaded.bytes, leaf!, codec, n_values);
  }
}

/** Refuses columns that are much larger than the file says, before they are decoded whole. */
function checkDecoded(
  name: string,
  column: string,
  columns: readonly ColumnPages[],
): void {
  const pages = columns.flatMap(({ pages }) => pages);
  const sum = (numbers: number[]): number => numbers.reduce((a, b) => a + b, 0);
  const stored = sum(pages.map(({ body }) => body.length));
  const checks = [
    ["values", Math.max(...columns.map((c) => c.n_values)), MAX_VALUES],
    [
      "bytes",
      sum(pages.map(({ n_bytes }) => n_bytes)),
      Math.max(MAX_DECODED_BYTES, MAX_RATIO * stored),
    ],
  ] as const;
  for (const [what, got, most] of checks) {
    if (got <= most) continue;
    throw new RangeError(
      `Cannot read "${name}": expected at most ${most} ${what} of column "${column}" in a row group: got ${got}: write it with smaller row groups`,
    );
  }
}

/** A source as hyparquet reads it; what is loaded is not read again. */
function bufferOf(
  source: Source,
  loaded: ReadonlySet<LoadedChunk>,
): AsyncBuffer {
  return {
    byteLength: source.byteLength,
    async slice(from, to = source.byteLength): Promise<ArrayBuffer> {
      for (const { start, bytes } of loaded) {
        const end = start + bytes.length;
        if (from === start && to === end) return bytes.buffer;
        if (from >= start && to <= end) {
          return bytes.slice(from - start, to - start).buffer;
        }
      }
      return (await readSource(source, from, to)).buffer;
    },
  };
}

/** A failure to get bytes, or a wish to stop: neither says anything of what they hold. */
class SourceFailure extends Error {}

async function readSource(
  source: Source,
  start: number,
  end: number,
): Promise<Uint8Array<ArrayBuffer>> {
  try {
    return await source.read(start, end);
  } catch (cause) {
    throw new SourceFailure("no bytes came", { cause });
  }
}

/** Runs a reader that does not name files; its failure names the file in one line. */
async function told<T>(name: string, read: () => Promise<T>): Promise<T> {
  try {
    return await read();
  } catch (cause) {
    if (cause instanceof SourceFailure) throw cause.cause;
    const reason = cause instanceof Error ? cause.message : String(cause);
    // Some reasons are told in full already.
    if (reason.startsWith(`Cannot read "${name}": `)) throw cause;
    throw new SyntaxError(
      `Cannot read "${name}": ${
        reason.replace(/\s+/g, " ")
      }: the file is damaged: fetch it again`,
      { cause },
    );
  }
}
