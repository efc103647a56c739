/**
 * Documents of a text, and how rows and lines become documents.
 * @module
 */
import { z } from "zod";
import { checkJson } from "./check_json.ts";
import type { ConceptSpan } from "./storybook.ts";
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

/** A document and its number in the order of reading, from 0. */
export interface NumberedDocument {
  readonly index: number;
  readonly document: CorpusDocument;
}

/** A place in the order of reading; its document is undefined where it has no text and is passed over. */
export interface NumberedPlace {
  readonly index: number;
  readonly document: CorpusDocument | undefined;
}

/** How rows and lines become documents. */
export interface DocumentOptions {
  /** Field or column of the text; default "text". */
  readonly textColumn?: string | undefined;
  /** Whether documents and files without text are passed over; else they are refused. */
  readonly skipEmpty?: boolean | undefined;
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

/**
 * The document that a JSON object holds: a text, with spans as the storybook writes them or without, or `messages`.
 * @param file Name of its file.
 * @param place Where in the file, as "line 7" or "row 7".
 * @returns undefined if its text is empty, blank or null, and such documents are passed over.
 * @throws {SyntaxError} If it holds neither, or an empty text: names file and place.
 */
export function documentOf(
  file: string,
  place: string,
  json: unknown,
  { textColumn = "text", skipEmpty = false }: DocumentOptions,
): CorpusDocument | undefined {
  const id = `${file}:${place.replace(/\D+/, "")}`;
  const fields = typeof json === "object" && json !== null
    ? new Map<string, unknown>(Object.entries(json))
    : new Map<string, unknown>();
  const text = fields.get(textColumn) ?? undefined;
  const isEmpty = typeof text === "string"
    ? text.trim() === ""
    : text === undefined && fields.has(textColumn);
  if (isEmpty && skipEmpty) return undefined;
  if (isEmpty) {
    throw wrongDocument(
      file,
      place,
      `expected text in "${textColumn}": got empty text`,
      { fix: "correct or remove it, or give collect or train --skip-empty" },
    );
  }
  if (typeof text === "string") {
    if (!text.isWellFormed()) {
      throw wrongDocument(
        file,
        place,
        `expected text in "${textColumn}": got half a character`,
      );
    }
    if (!fields.has("spans")) return { id, text };
    const { spans } = checkJson(WithSpans, json, file, ` ${place}`);
    return { id, text, spans };
  }
  if (fields.has("messages")) {
    return { id, ...checkJson(WithMessages, json, file, ` ${place}`) };
  }
  throw wrongDocument(
    file,
    place,
    `expected text in "${textColumn}", or "messages": got ${
      [...fields.keys()].join(", ") || "neither"
    }`,
  );
}

/** The error of a document that cannot be read. */
export function wrongDocument(
  file: string,
  place: string,
  expected: string,
  { cause, fix = "correct or remove it" }: {
    readonly cause?: unknown;
    readonly fix?: string;
  } = {},
): SyntaxError {
  return new SyntaxError(
    `Cannot read "${file}" ${place}: ${expected}: ${fix}`,
    { cause },
  );
}
