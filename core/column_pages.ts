/**
 * The pages of a column in a row group: found and checked by their headers
 * before anything is allocated for what they hold.
 * @module
 */
import type { CompressionCodec, ParquetType } from "hyparquet";
import { DECOMPRESSORS } from "./decompress.ts";
import { readThrift, type ThriftFields } from "./thrift_compact.ts";

/** How values or levels are encoded, as the format numbers it. */
export const ENCODING = {
  PLAIN: 0,
  PLAIN_DICTIONARY: 2,
  RLE: 3,
  RLE_DICTIONARY: 8,
} as const;

/** A column of the schema that has values. */
export interface LeafColumn {
  /** Names from the top of the schema down to it. */
  readonly path: readonly string[];
  /** How each value is stored. */
  readonly type: ParquetType;
  /** Whether its values are unsigned integers of 16 bits. */
  readonly isUint16: boolean;
  /** Level of a value that is there: parts of the path that are optional or repeated. */
  readonly maxDefinition: number;
  /** Parts of the path that are repeated. */
  readonly maxRepetition: number;
}

/** A page whose header fits its column. */
export interface ColumnPage {
  /** A dictionary comes before the pages that refer to it. */
  readonly kind: "dictionary" | "data";
  /** Values, those that are absent included. */
  readonly n_values: number;
  /** How values are encoded: {@link ENCODING}. */
  readonly encoding: number;
  /** What follows the header, perhaps compressed. */
  readonly body: Uint8Array<ArrayBuffer>;
  /** Length of the body once it is decompressed. */
  readonly n_bytes: number;
  /** Whether levels are encoded as runs. */
  readonly hasRuns: boolean;
  /** Bytes of the levels, which lie before the values and are not compressed; undefined where pages are of version 1. */
  readonly levels?: {
    readonly repetition: number;
    readonly definition: number;
  };
  /** How the body, or the values in it, are compressed. */
  readonly codec: CompressionCodec;
}

/** A column in a row group. */
export interface ColumnPages {
  readonly leaf: LeafColumn;
  /** Values of all data pages, those that are absent included. */
  readonly n_values: number;
  readonly pages: readonly ColumnPage[];
}

/** Values of a page at most; a page of a few bytes can claim any number of equal ones. */
const MAX_PAGE_VALUES = 2 ** 24;

/** Bytes of a page of 32-bit values at most: four times as many as the values have, for levels and encodings, and a few. */
const MAX_INT32_BYTES = 16;
const INT32_SLACK = 1024;

/** Numbers that the format gives to kinds of pages. */
const DATA_PAGE = 0;
const INDEX_PAGE = 1;
const DICTIONARY_PAGE = 2;
const DATA_PAGE_V2 = 3;

/**
 * Finds the pages of a column.
 * @param bytes All that the column has in the row group.
 * @throws {RangeError} If a page does not fit into it, or they do not have as many values.
 */
export function pagesOf(
  bytes: Uint8Array<ArrayBuffer>,
  leaf: LeafColumn,
  codec: CompressionCodec,
  n_values: number,
): ColumnPages {
  const pages: ColumnPage[] = [];
  let nFound = 0;
  const isNested = leaf.maxRepetition > 0;
  // Where rows are lists, only the end of the bytes says that the last one is whole.
  for (let at = 0; at < bytes.length && (isNested || nFound < n_values);) {
    const { fields, end } = readThrift(bytes, at);
    const nBody = wholeNumber(fields, 3, bytes.length - end);
    const body = bytes.subarray(end, end + nBody);
    at = end + nBody;
    const page = pageOf(fields, body, leaf, codec);
    if (!page) continue;
    pages.push(page);
    if (page.kind === "data") nFound += page.n_values;
  }
  if (nFound !== n_values) {
    throw new RangeError(
      `expected ${n_values} values in the pages of column "${
        leaf.path.join(".")
      }": got ${nFound}`,
    );
  }
  return { leaf, n_values, pages };
}

/** A page by its header; undefined for kinds that have no values. */
function pageOf(
  header: ThriftFields,
  body: Uint8Array<ArrayBuffer>,
  leaf: LeafColumn,
  codec: CompressionCodec,
): ColumnPage | undefined {
  const type = header.get(1);
  if (type === INDEX_PAGE) return undefined;
  const nBytes = wholeNumber(header, 2, 2 ** 31 - 1);
  const details = header.get(
    type === DICTIONARY_PAGE ? 7 : type === DATA_PAGE_V2 ? 8 : 5,
  );
  if (typeof details !== "object") {
    throw new RangeError(`a page of type ${type} has no header of its own`);
  }
  const n_values = wholeNumber(details, 1, MAX_PAGE_VALUES);
  if (leaf.type === "INT32") {
    wholeNumber(header, 2, n_values * MAX_INT32_BYTES + INT32_SLACK);
  }
  const common = { n_values, body, n_bytes: nBytes };
  if (type === DICTIONARY_PAGE) {
    // A value of a dictionary is there, and has a byte at least.
    wholeNumber(details, 1, nBytes);
    const encoding = wholeNumber(details, 2, 255);
    const page = { ...common, kind: "dictionary", encoding, codec } as const;
    return checkSizes({ ...page, hasRuns: true });
  }
  if (type === DATA_PAGE) {
    const hasRuns =
      (leaf.maxDefinition === 0 || details.get(3) === ENCODING.RLE) &&
      (leaf.maxRepetition === 0 || details.get(4) === ENCODING.RLE);
    const encoding = wholeNumber(details, 2, 255);
    return checkSizes({ ...common, kind: "data", encoding, codec, hasRuns });
  }
  if (type !== DATA_PAGE_V2) throw new RangeError(`a page has type ${type}`);
  const definition = wholeNumber(details, 5, body.length);
  const repetition = wholeNumber(details, 6, body.length - definition);
  return checkSizes({
    ...common,
    kind: "data",
    encoding: wholeNumber(details, 4, 255),
    levels: { repetition, definition },
    hasRuns: true,
    codec: details.get(7) === 0 ? "UNCOMPRESSED" : codec,
  });
}

function checkSizes(page: ColumnPage): ColumnPage {
  const { codec, body, n_bytes } = page;
  if (codec !== "UNCOMPRESSED" || n_bytes === body.length) return page;
  throw new RangeError(
    `expected a page of ${body.length} bytes, which are not compressed: got ${n_bytes}`,
  );
}

function wholeNumber(fields: ThriftFields, id: number, most: number): number {
  const value = fields.get(id);
  if (typeof value === "number" && value >= 0 && value <= most) return value;
  throw new RangeError(
    `expected 0 to ${most} in field ${id} of a page header: got ${
      typeof value === "object" ? "a structure" : value
    }`,
  );
}

/** A page taken apart: its levels, and its values, all decompressed. */
export interface PageParts {
  readonly repetition: Uint8Array;
  readonly definition: Uint8Array;
  readonly values: Uint8Array;
}

/**
 * Decompresses a page and takes it apart; levels must be runs.
 * @throws {RangeError} If its parts do not fit into it.
 */
export function partsOf(page: ColumnPage, leaf: LeafColumn): PageParts {
  const { body, levels, n_bytes, codec } = page;
  if (levels) {
    const { repetition, definition } = levels;
    const at = repetition + definition;
    return {
      repetition: body.subarray(0, repetition),
      definition: body.subarray(repetition, at),
      values: decompressed(body.subarray(at), n_bytes - at, codec),
    };
  }
  const bytes = decompressed(body, n_bytes, codec);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  let at = 0;
  const part = (): Uint8Array => {
    const n = at + 4 <= bytes.length ? view.getUint32(at, true) : Infinity;
    if (n > bytes.length - at - 4) {
      throw new RangeError("expected levels inside their page: got more");
    }
    at += 4 + n;
    return bytes.subarray(at - n, at);
  };
  const hasLevels = page.kind === "data";
  const none = bytes.subarray(0, 0);
  const repetition = hasLevels && leaf.maxRepetition > 0 ? part() : none;
  const definition = hasLevels && leaf.maxDefinition > 0 ? part() : none;
  return { repetition, definition, values: bytes.subarray(at) };
}

function decompressed(
  bytes: Uint8Array,
  n_bytes: number,
  codec: CompressionCodec,
): Uint8Array {
  if (codec === "UNCOMPRESSED") return bytes;
  const decompress = DECOMPRESSORS[codec];
  if (decompress) return decompress(bytes, n_bytes);
  throw new RangeError(`expected a known compression: got ${codec}`);
}
