/**
 * Text sources: the storybook, text files, JSON lines, parquet, and folders of
 * these, as a stream of documents.
 * @module
 */
import { z } from "zod";
import { checkJson } from "./check_json.ts";
import { ParquetFile } from "./parquet.ts";
import type { Folder, Source } from "./source.ts";
import { type ConceptSpan, storybook } from "./storybook.ts";
import { readLines } from "./text_lines.ts";
import type { ChatMessage } from "./tokenizer.ts";

/** A document of plain text. */
export interface TextDocument {
  /** Where it comes from: file and line or row, or storybook seed and index. */
  readonly id: string;
  /** Its text, neither empty nor blank. */
  readonly text: string;
  /** What it is about, where that is known. */
  readonly spans?: readonly ConceptSpan[];
}

/** A conversation, whose text is up to the model's chat template. */
export interface ChatDocument {
  /** Where it comes from. */
  readonly id: string;
  /** Its turns, at least one. */
  readonly messages: readonly ChatMessage[];
}

/** What a text source gives. */
export type CorpusDocument = TextDocument | ChatDocument;

/** Opens a path as what it is. */
export type OpenPath = (path: string) => Promise<Source | Folder>;

/** Options of reading. */
export interface ReadOptions {
  /** Field or column of the text; default "text". */
  readonly textColumn?: string;
}

type Reader = (
  source: Source,
  textColumn: string,
) => AsyncGenerator<CorpusDocument>;

/** Readers by file ending. */
const READERS: ReadonlyMap<string, Reader> = new Map([
  ["txt", readParagraphs],
  ["jsonl", readJsonLines],
  ["parquet", readParquet],
]);

/**
 * The documents of a text source, in order:
 * - `storybook:SEED` or `storybook:SEED:N`: the storybook, endless or N documents;
 * - `FILE.txt`: paragraphs, separated by blank lines, each a document;
 * - `FILE.jsonl`: a document a line, with a text field (and `spans`, as the storybook writes them) or `messages`;
 * - `FILE.parquet`: a document a row, with a text column or `messages`;
 * - a folder: all such files in it, sorted by name.
 *
 * Errors come when the stream reaches them, the first ones at the first document.
 * @throws {SyntaxError} If the source is misspelled, or a document is empty, not UTF-8 or lacks its field: names file and line or row.
 * @throws {TypeError} If a file has another ending.
 * @throws {RangeError} If a file has no document, or a folder no such file.
 */
export async function* readDocuments(
  spec: string,
  open: OpenPath,
  options: ReadOptions = {},
): AsyncGenerator<CorpusDocument> {
  if (spec.startsWith("storybook:")) {
    yield* readStorybook(spec);
    return;
  }
  const textColumn = options.textColumn ?? "text";
  for (const source of await textFiles(spec, open)) {
    let isEmpty = true;
    for await (const document of readerOf(source.name)(source, textColumn)) {
      isEmpty = false;
      yield document;
    }
    if (!isEmpty) continue;
    throw new RangeError(
      `Cannot read "${source.name}": expected text: got none: remove it`,
    );
  }
}

async function textFiles(spec: string, open: OpenPath): Promise<Source[]> {
  const opened = await open(spec);
  if (!("list" in opened)) return [opened];
  const names = (await opened.list()).filter((name) =>
    READERS.has(ending(name))
  );
  if (names.length > 0) {
    return await Promise.all(names.map((name) => opened.open(name)));
  }
  throw new RangeError(
    `Cannot read text in "${spec}": expected files that end in ${
      [...READERS.keys()].join(", ")
    }: got none: name another folder`,
  );
}

function ending(file: string): string {
  return file.slice(file.lastIndexOf(".") + 1).toLowerCase();
}

function readerOf(file: string): Reader {
  const reader = READERS.get(ending(file));
  if (reader) return reader;
  throw new TypeError(
    `Cannot read text from "${file}": expected a file that ends in ${
      [...READERS.keys()].join(", ")
    }, a folder of these, or storybook:SEED`,
  );
}

function* readStorybook(spec: string): Generator<TextDocument> {
  const [, seed, n = "Infinity"] = /^storybook:(\d+)(?::([1-9]\d*))?$/
    .exec(spec) ?? [];
  if (seed === undefined) {
    throw new SyntaxError(
      `Cannot read "${spec}": expected storybook:SEED or storybook:SEED:N with N documents`,
    );
  }
  let index = 0;
  for (const { text, spans } of storybook(Number(seed))) {
    if (index >= Number(n)) return;
    yield { id: `storybook:${seed}:${index}`, text, spans };
    index++;
  }
}

async function* readParagraphs(source: Source): AsyncGenerator<TextDocument> {
  let paragraph: string[] = [];
  let start = 1;
  for await (const { text, number } of readLines(source)) {
    if (text.trim() !== "") {
      if (paragraph.length === 0) start = number;
      paragraph.push(text);
    } else if (paragraph.length > 0) {
      yield { id: `${source.name}:${start}`, text: paragraph.join("\n") };
      paragraph = [];
    }
  }
  if (paragraph.length > 0) {
    yield { id: `${source.name}:${start}`, text: paragraph.join("\n") };
  }
}

async function* readJsonLines(
  source: Source,
  textColumn: string,
): AsyncGenerator<CorpusDocument> {
  for await (const { text, number } of readLines(source)) {
    if (text.trim() === "") continue;
    const place = `line ${number}`;
    let json: unknown;
    try {
      json = JSON.parse(text);
    } catch (cause) {
      throw wrongDocument(source, place, "expected a JSON object", cause);
    }
    yield documentOf(source, place, json, textColumn);
  }
}

async function* readParquet(
  source: Source,
  textColumn: string,
): AsyncGenerator<CorpusDocument> {
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
  for (const [group, { start, n_rows }] of file.rowGroups.entries()) {
    const values = await file.read(column, group);
    for (let i = 0; i < n_rows; i++) {
      const place = `row ${start + i}`;
      let value: unknown;
      try {
        value = decodeTexts(values[i]);
      } catch (cause) {
        throw wrongDocument(source, place, "expected UTF-8", cause);
      }
      yield documentOf(source, place, { [column]: value }, textColumn);
    }
  }
}

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** A parquet value with its byte strings decoded, however deep they are. */
function decodeTexts(value: unknown): unknown {
  if (value instanceof Uint8Array) return utf8.decode(value);
  if (Array.isArray(value)) return value.map(decodeTexts);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, inner]) => [key, decodeTexts(inner)]),
  );
}

const WithSpans: z.ZodType<{ spans: ConceptSpan[] }> = z.object({
  spans: z.array(z.object({
    start: z.int().min(0),
    end: z.int().min(0),
    concept: z.string(),
  })),
});

const WithMessages: z.ZodType<{ messages: ChatMessage[] }> = z.object({
  messages: z.array(z.object({
    role: z.enum(["system", "user", "assistant"]),
    content: z.string(),
  })).min(1),
});

function documentOf(
  source: Source,
  place: string,
  json: unknown,
  textColumn: string,
): CorpusDocument {
  const id = `${source.name}:${place.replace(/\D+/, "")}`;
  const fields = typeof json === "object" && json !== null
    ? new Map<string, unknown>(Object.entries(json))
    : new Map<string, unknown>();
  const text = fields.get(textColumn);
  if (typeof text === "string") {
    if (text.trim() === "" || !text.isWellFormed()) {
      const fault = text.trim() === "" ? "empty text" : "half a character";
      throw wrongDocument(
        source,
        place,
        `expected text in "${textColumn}": got ${fault}`,
      );
    }
    if (!fields.has("spans")) return { id, text };
    const { spans } = checkJson(WithSpans, json, source.name, ` ${place}`);
    return { id, text, spans };
  }
  if (fields.has("messages")) {
    const { name } = source;
    return { id, ...checkJson(WithMessages, json, name, ` ${place}`) };
  }
  throw wrongDocument(
    source,
    place,
    `expected text in "${textColumn}", or "messages": got ${
      [...fields.keys()].join(", ") || "neither"
    }`,
  );
}

function wrongDocument(
  source: Source,
  place: string,
  expected: string,
  cause?: unknown,
): SyntaxError {
  return new SyntaxError(
    `Cannot read "${source.name}" ${place}: ${expected}: correct or remove it`,
    { cause },
  );
}
