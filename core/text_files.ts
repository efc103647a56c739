/**
 * Files of text as numbered documents: paragraphs, JSON lines and parquet.
 * @module
 */
import { gunzip } from "./gunzip.ts";
import { ParquetFile } from "./parquet.ts";
import type { Rng } from "./rng.ts";
import type { Source } from "./source.ts";
import {
  documentOf,
  type DocumentOptions,
  type NumberedDocument,
  type NumberedPlace,
  wrongDocument,
} from "./text_document.ts";
import { chunksOf, readLines } from "./text_lines.ts";
import { unzstd } from "./unzstd.ts";

/** The first number from n on of a document that is wanted; Infinity where none is. */
export type NextWanted = (n: number) => number;

/** What of a file is read. */
export interface FileReading extends DocumentOptions {
  /** Number of the file's first document. */
  readonly first: number;
  readonly nextWanted: NextWanted;
  /** Draws the order of row groups; that of the file without it. */
  readonly order?: Rng | undefined;
}

type Chunks = AsyncIterable<Uint8Array>;

/**
 * Wanted documents; ends with the number after the file's last document, or where nothing more is wanted.
 * Others are passed over as cheaply as the format allows, and not checked.
 */
export type Reading = AsyncGenerator<NumberedPlace, number>;

type Reader = (source: Source, reading: FileReading) => Reading;

type LineReader = (
  source: Source,
  chunks: Chunks,
  reading: FileReading,
) => Reading;

/** A file without blank lines must not end up in memory whole. */
const MAX_PARAGRAPH_LENGTH = 64 * 2 ** 20;

const DECOMPRESSORS = { gz: gunzip, zst: unzstd } as const;

/** Readers by file ending. */
const READERS: ReadonlyMap<string, Reader> = new Map([
  ...withCompressed("txt", readParagraphs),
  ...withCompressed("jsonl", readJsonLines),
  // Uncompressed .json files are configurations, mostly.
  ...withCompressed("json", readJsonLines).slice(1),
  ["parquet", readParquet],
]);

function withCompressed(
  ending: string,
  read: LineReader,
): [string, Reader][] {
  return [
    [ending, (source, reading) => read(source, chunksOf(source), reading)],
    ...Object.entries(DECOMPRESSORS).map(([end, decompress]) =>
      [
        `${ending}.${end}`,
        (source, reading) => read(source, decompress(source), reading),
      ] satisfies [string, Reader]
    ),
  ];
}

/** Endings of the files that are read, for errors. */
export const TEXT_ENDINGS: string =
  "txt, jsonl, parquet, or .gz or .zst of txt, jsonl or json";

/** Whether a file of this name is read as text. */
export function isTextFile(file: string): boolean {
  return readerOf(file) !== undefined;
}

function readerOf(file: string): Reader | undefined {
  const parts = file.toLowerCase().split(".");
  return READERS.get(parts.slice(-2).join(".")) ??
    READERS.get(parts.at(-1) ?? "");
}

/**
 * Reads a file by its ending.
 * @throws {TypeError} If it has another ending.
 */
export function readTextFile(source: Source, reading: FileReading): Reading {
  const reader = readerOf(source.name);
  if (reader) return reader(source, reading);
  throw new TypeError(
    `Cannot read text from "${source.name}": expected a file that ends in ${TEXT_ENDINGS}; a folder of these; or storybook:SEED`,
  );
}

async function* readParagraphs(
  source: Source,
  chunks: Chunks,
  { first, nextWanted }: FileReading,
): Reading {
  let n = first;
  let wanted = nextWanted(n);
  let paragraph: string[] = [];
  let length = 0;
  let start = 1;
  const close = function* (): Generator<NumberedDocument> {
    if (n >= wanted) {
      const document = {
        id: `${source.name}:${start}`,
        text: paragraph.join("\n"),
      };
      yield { index: n, document };
      wanted = nextWanted(n + 1);
    }
    n++;
    paragraph = [];
    length = 0;
  };
  for await (const { text, number } of readLines(source, chunks)) {
    if (text.trim() !== "") {
      if (paragraph.length === 0) start = number;
      paragraph.push(text);
      length += text.length;
      if (length > MAX_PARAGRAPH_LENGTH) {
        throw new RangeError(
          `Cannot read "${source.name}" line ${start}: expected a paragraph of at most ${MAX_PARAGRAPH_LENGTH} characters: got more: separate documents by blank lines`,
        );
      }
    } else if (paragraph.length > 0) {
      yield* close();
      if (wanted === Infinity) return n;
    }
  }
  if (paragraph.length > 0) yield* close();
  return n;
}

async function* readJsonLines(
  source: Source,
  chunks: Chunks,
  { first, nextWanted, ...options }: FileReading,
): Reading {
  let n = first;
  let wanted = nextWanted(n);
  for await (const line of readLines(source, chunks)) {
    if (line.isBlank) continue;
    if (n < wanted) {
      n++;
      continue;
    }
    const place = `line ${line.number}`;
    const { text } = line;
    let json: unknown;
    try {
      json = JSON.parse(text);
    } catch (cause) {
      const expected = "expected a JSON object";
      throw wrongDocument(source.name, place, expected, { cause });
    }
    const document = documentOf(source.name, place, json, options);
    yield { index: n++, document };
    wanted = nextWanted(n);
    if (wanted === Infinity) return n;
  }
  return n;
}

async function* readParquet(
  source: Source,
  { first, nextWanted, order, ...options }: FileReading,
): Reading {
  const { textColumn = "text" } = options;
  const file = await ParquetFile.open(source);
  const column = [textColumn, "messages"].find((name) =>
    file.columns.includes(name)
  );
  if (column === undefined) {
    throw new SyntaxError(
      `Cannot read text from "${source.name}": expected a column "${textColumn}" or "messages": got ${
        file.columns.join(", ")
      }: name it with --text-column`,
    );
  }
  const groups = [...file.rowGroups.keys()];
  let n = first;
  for (const group of order?.shuffle(groups) ?? groups) {
    const { start, n_rows } = file.rowGroups[group]!;
    let wanted = nextWanted(n);
    if (wanted === Infinity) return n;
    if (wanted < n + n_rows) {
      const values = await file.read(column, group);
      for (; wanted < n + n_rows; wanted = nextWanted(wanted + 1)) {
        const row = wanted - n;
        const place = `row ${start + row}`;
        const json = { [column]: decoded(source, place, values[row]) };
        const document = documentOf(source.name, place, json, options);
        yield { index: wanted, document };
      }
    }
    n += n_rows;
  }
  return n;
}

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

function decoded(source: Source, place: string, value: unknown): unknown {
  try {
    return decodeTexts(value);
  } catch (cause) {
    throw wrongDocument(source.name, place, "expected UTF-8", { cause });
  }
}

/** A parquet value with its byte strings decoded, however deep they are. */
function decodeTexts(value: unknown): unknown {
  if (value instanceof Uint8Array) return utf8.decode(value);
  if (Array.isArray(value)) return value.map(decodeTexts);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, inner]) => [key, decodeTexts(inner)]),
  );
}
