/**
 * The text that a model reads to collect or to train: flags, and what they open.
 * @module
 */
import type { ConfigOf, FlagTable } from "../core/flags.ts";
import { type ModelFolder, startTokenId } from "../core/model_folder.ts";
import { type Corpus, openCorpus, type TextShard } from "../core/text.ts";
import type { Tokenizer } from "../core/tokenizer.ts";
import type { PassConfig } from "../train/context_passes.ts";
import { findText, type OpenTextOptions } from "./text_open.ts";

/** How a text is read and cut into contexts. */
export const TEXT_FLAGS = {
  text_column: { default: "text", help: "field or column of the text" },
  skip_empty: {
    default: false,
    help:
      "pass over documents and files without text, which else end the run; that run goes on with it",
  },
  shuffle: {
    type: "number",
    integer: true,
    min: 0,
    unit: "seed",
    help:
      "read files, row groups and documents in an order drawn by this seed; in their own order without it",
  },
  context: {
    type: "number",
    integer: true,
    min: 2,
    unit: "tokens",
    help: "the model reads as many at once; 256 or its context without it",
  },
  pack: {
    default: "on",
    choices: ["on", "off"],
    help:
      "on: documents are joined and cut where a context is full; off: a document is a context, and what is longer is cut off",
  },
  separator: {
    default: "on",
    choices: ["on", "off"],
    help: "the start token before each document",
  },
  skip_first: {
    default: 1,
    integer: true,
    min: 0,
    unit: "tokens",
    help:
      "left out at the start of each context; the first is an outlier of many times the norm",
  },
} as const satisfies FlagTable;

/** `--skip-tokens`, for tasks whose recipe has none. */
export const SKIP_TOKENS_FLAG = {
  skip_tokens: {
    type: "string",
    help:
      "tokens whose vectors are left out: none, separator, special, or ids such as 0,1; separator without it, none with --pack off, where it stands first only",
  },
} as const satisfies FlagTable;

type TextFlags =
  & ConfigOf<typeof TEXT_FLAGS>
  & Partial<ConfigOf<typeof SKIP_TOKENS_FLAG>>;

/** What a task does with a text. */
export interface TextUse extends Omit<OpenTextOptions, "mayFetch"> {
  /** The task, as it is typed: "collect". */
  readonly task: string;
  /** The part that is read; all without it. */
  readonly shard?: TextShard | undefined;
  /** Whether a text without an end will do. */
  readonly mayBeEndless: boolean;
}

/** A text that was found. */
export interface OpenedText {
  /** Its name, that opens it again from anywhere. */
  readonly text: string;
  readonly corpus: Corpus;
  /** How it becomes contexts. */
  readonly contexts: Omit<PassConfig, "tokensPerPass" | "maxDocuments">;
  /** What decides its contexts, for the fingerprint of a run; the same for all shards. */
  readonly id: Readonly<Record<string, unknown>>;
}

/**
 * Opens the text that the flags name.
 * @throws {RangeError} If the model has no such context, nothing of it is left, or the text has no end where it must have one.
 * @throws {Error} As `openCorpus`.
 */
export async function openText(
  typed: string,
  flags: TextFlags,
  model: ModelFolder,
  { task, shard, mayBeEndless, ...options }: TextUse,
): Promise<OpenedText> {
  const { text_column, skip_empty, shuffle } = flags;
  const contexts = contextsOf(flags, model, task);
  const { text, open } = await findText(typed, { ...options, mayFetch: true });
  const corpus = await openCorpus(text, open, {
    textColumn: text_column,
    skipEmpty: skip_empty,
    shard,
    shuffleSeed: shuffle,
  });
  if (corpus.isEndless && !mayBeEndless) {
    throw new RangeError(
      `Cannot ${task} from "${text}": it is endless: write ${text}:3000, or give --documents or --tokens`,
    );
  }
  return {
    text,
    corpus,
    contexts,
    id: {
      text,
      files: corpus.files.map(({ name, byteLength }) => [name, byteLength]),
      textColumn: text_column,
      // Not skip_empty: a run that an empty document has ended goes on with it.
      ...(shuffle === undefined ? {} : { shuffle }),
      ...contexts,
      skipTokens: [...contexts.skipTokens].sort((a, b) => a - b),
    },
  };
}

function contextsOf(
  flags: TextFlags,
  model: ModelFolder,
  task: string,
): OpenedText["contexts"] {
  const { name, config: { context_length }, tokenizer } = model;
  const contextLength = flags.context ?? Math.min(256, context_length);
  if (contextLength > context_length) {
    throw new RangeError(
      `Cannot ${task} with --context ${contextLength}: the context of model "${name}" is ${context_length} tokens: shorten it`,
    );
  }
  if (flags.skip_first >= contextLength) {
    throw new RangeError(
      `Cannot ${task} with --skip-first ${flags.skip_first}: expected fewer than the ${contextLength} tokens of a context: nothing would be left`,
    );
  }
  const pack = flags.pack === "on";
  const { skip_tokens = pack ? "separator" : "none" } = flags;
  return {
    contextLength,
    pack,
    separator: flags.separator === "on",
    skipFirst: flags.skip_first,
    skipTokens: skip_tokens === "separator"
      ? new Set([startTokenId(model)])
      : skippedTokens(skip_tokens, tokenizer),
  };
}

function skippedTokens(
  typed: string,
  { specialIds, vocabSize }: Tokenizer,
): ReadonlySet<number> {
  if (typed === "none") return new Set();
  if (typed === "special") return specialIds;
  const ids = typed.split(",").map((id) => /^\d+$/.test(id) ? Number(id) : NaN);
  if (ids.every((id) => id < vocabSize)) return new Set(ids);
  throw new RangeError(
    `Cannot leave out tokens: expected --skip-tokens none, separator, special, or ids below ${vocabSize} such as 0,1: got ${
      JSON.stringify(typed)
    }`,
  );
}
