/**
 * The footer of a parquet file: read, and checked against the file, before
 * anything that it says is believed.
 * @module
 */
import {
  type AsyncBuffer,
  type FileMetaData,
  parquetMetadataAsync,
} from "hyparquet";
import type { LeafColumn } from "./column_pages.ts";
import type { Source } from "./source.ts";

/** A run of rows that is read and decoded as one. */
export interface RowGroup {
  /** Index of its first row in the file. */
  readonly start: number;
  /** Number of rows. */
  readonly n_rows: number;
}

/** A row group with the place of its columns in the metadata. */
export interface FooterGroup extends RowGroup {
  readonly columns: FileMetaData["row_groups"][number]["columns"];
}

/** A footer that fits its file. */
export interface Footer {
  readonly metadata: FileMetaData;
  /** Row groups that have rows, in order. */
  readonly rowGroups: readonly FooterGroup[];
  /** The columns that have values, in the order of the schema. */
  readonly leaves: readonly LeafColumn[];
}

/** Footers are held whole; a longer one is no file of ours or of Hugging Face. */
const MAX_FOOTER_BYTES = 256 * 2 ** 20;

const MAGIC = "PAR1";
/** What a file whose footer is encrypted begins and ends with. */
const ENCRYPTED_MAGIC = "PARE";

/**
 * Checks that the end of a file is a footer's.
 * @throws {SyntaxError} If it is encrypted, truncated or no parquet file.
 */
export async function checkFooter(source: Source): Promise<void> {
  const { name, byteLength } = source;
  const refuse = (got: string): SyntaxError =>
    new SyntaxError(
      `Cannot read "${name}": expected a parquet file: got ${got}: it is truncated or of another format: fetch it again`,
    );
  if (byteLength < 12) throw refuse(`${byteLength} bytes`);
  const tail = await source.read(byteLength - 8, byteLength);
  const magic = String.fromCharCode(...tail.subarray(4));
  if (magic === ENCRYPTED_MAGIC) throw encrypted(name);
  if (magic !== MAGIC) throw refuse(`no ${MAGIC} at its end`);
  const footerBytes = new DataView(tail.buffer).getUint32(0, true);
  const limit = Math.min(byteLength - 12, MAX_FOOTER_BYTES);
  if (footerBytes > limit) {
    throw refuse(`a footer of ${footerBytes} bytes where ${limit} can be`);
  }
}

/** The error of a file that only the owner of a key can read. */
function encrypted(name: string, column?: string): SyntaxError {
  const what = column === undefined ? "" : ` in column "${column}"`;
  return new SyntaxError(
    `Cannot read "${name}": expected a file that is not encrypted: got encryption${what}: write it without`,
  );
}

/**
 * Reads the footer.
 * @throws {Error} If it does not fit the file; an error of encryption names the file.
 */
export async function readFooter(
  { name, byteLength }: Source,
  file: AsyncBuffer,
): Promise<Footer> {
  const metadata = await parquetMetadataAsync(file, { geoparquet: false });
  const leaves = leavesOf(metadata.schema);
  const rowGroups: FooterGroup[] = [];
  let start = 0;
  for (const { num_rows, columns } of metadata.row_groups) {
    const n_rows = Number(num_rows);
    if (!(Number.isSafeInteger(start + n_rows) && n_rows >= 0)) {
      throw new RangeError(
        `expected a number of rows in a row group: got ${n_rows}`,
      );
    }
    for (const column of columns) checkColumn(name, byteLength, column);
    if (n_rows > 0) rowGroups.push({ start, n_rows, columns });
    start += n_rows;
  }
  if (start !== Number(metadata.num_rows)) {
    throw new RangeError(
      `expected ${metadata.num_rows} rows: got ${start} in its row groups`,
    );
  }
  return { metadata, rowGroups, leaves };
}

/** Where a column of a row group is in the file, in bytes. */
export function rangeOf(
  { meta_data }: FooterGroup["columns"][number],
): [start: number, end: number] {
  const start = Number(
    meta_data!.dictionary_page_offset || meta_data!.data_page_offset,
  );
  return [start, start + Number(meta_data!.total_compressed_size)];
}

function checkColumn(
  name: string,
  byteLength: number,
  column: FooterGroup["columns"][number],
): void {
  const { meta_data, file_path } = column;
  const path = meta_data?.path_in_schema.join(".");
  if (column.crypto_metadata || column.encrypted_column_metadata) {
    throw encrypted(name, path ?? "of a hidden name");
  }
  if (!meta_data || file_path) {
    throw new RangeError("expected columns in the file itself");
  }
  const [first, end] = rangeOf(column);
  if (!(first >= 4 && end >= first && end <= byteLength)) {
    throw new RangeError(
      `expected column "${path}" inside [4, ${byteLength}): got [${first}, ${end})`,
    );
  }
}

/** The schema is a tree in depth-first order under a root. */
function leavesOf(schema: FileMetaData["schema"]): LeafColumn[] {
  const leaves: LeafColumn[] = [];
  /** The groups that the next element is in, with how many of their children are still to come. */
  const open: { path: string[]; levels: [number, number]; left: number }[] = [];
  for (const [i, element] of schema.entries()) {
    while (open.at(-1)?.left === 0) open.pop();
    const parent = open.at(-1);
    if (parent) parent.left--;
    else if (i > 0) throw new RangeError("a schema has elements without place");
    const { name, type, num_children = 0, repetition_type } = element;
    const path = i === 0 ? [] : [...parent!.path, name];
    const [definition, repetition] = parent?.levels ?? [0, 0];
    const isRepeated = i > 0 && repetition_type === "REPEATED";
    const isOptional = i > 0 && repetition_type === "OPTIONAL";
    const levels: [number, number] = [
      definition + Number(isRepeated || isOptional),
      repetition + Number(isRepeated),
    ];
    if (num_children > 0 || i === 0) {
      open.push({ path, levels, left: num_children });
    } else if (type) {
      leaves.push({
        path,
        type,
        isUint16: isUint16(element),
        maxDefinition: levels[0],
        maxRepetition: levels[1],
      });
    }
  }
  return leaves;
}

function isUint16(
  { type, converted_type, logical_type }: FileMetaData["schema"][number],
): boolean {
  if (type !== "INT32") return false;
  if (logical_type?.type === "INTEGER") {
    return logical_type.bitWidth === 16 && !logical_type.isSigned;
  }
  return converted_type === "UINT_16";
}
