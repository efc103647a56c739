/**
 * Documents as contexts: the runs of tokens that a model reads as one.
 * @module
 */
import type { CorpusDocument, NumberedDocument } from "./text.ts";
import type { Tokenizer } from "./tokenizer.ts";

/** Where reading goes on: the first token of the text that no context has taken. */
export interface TextPosition {
  /** Number of the document in the order of reading. */
  readonly document: number;
  /** Place among the document's tokens, the separator before it included. */
  readonly token: number;
}

/** Tokens that a model reads as one, `[T]`. */
export interface TokenContext {
  /** Token ids, what the model reads. */
  readonly ids: Uint32Array<ArrayBuffer>;
  /** Each token's document, by its number in the order of reading; that of the whole text where this is a part of it. */
  readonly documents: Int32Array<ArrayBuffer>;
  /** Place in the context, 0 to T - 1. */
  readonly positions: Int32Array<ArrayBuffer>;
  /** 1 where the vector of a token is wanted, 0 where it is masked. */
  readonly kept: Uint8Array<ArrayBuffer>;
  /** Its first token. */
  readonly start: TextPosition;
  /** Where the context after it begins. */
  readonly next: TextPosition;
}

/** How documents become contexts. */
export interface ContextOptions {
  /** Most tokens of a context. */
  readonly contextLength: number;
  /**
   * Whether documents are joined, and cut where a context is full, so that every token is read and every context
   * but the last is full; else a document is a context, and what is cut off is not read.
   */
  readonly pack: boolean;
  /** Whether the start token stands before each document. */
  readonly separator: boolean;
  /** Tokens at the start of each context that are masked. */
  readonly skipFirst: number;
  /** Tokens that are masked wherever they are. */
  readonly skipTokens: ReadonlySet<number>;
  /** The token that starts a document. */
  readonly startTokenId: number;
  /** Where to begin; the first document without it. */
  readonly start?: TextPosition | undefined;
}

/** What contexts need of a tokenizer. */
export type ContextTokenizer = Pick<Tokenizer, "encode" | "applyChatTemplate">;

/** Order of two positions: negative where `a` is before `b`, 0 where they are the same. */
export function comparePositions(a: TextPosition, b: TextPosition): number {
  return a.document - b.document || a.token - b.token;
}

/**
 * The contexts of a text in order. From the `next` of any of them on they are the same as
 * from the beginning.
 * @param documents In order; those before the start are passed over.
 * @throws {Error} If a conversation cannot be written with the model's chat template: names the document.
 */
export async function* tokenContexts(
  documents: AsyncIterable<NumberedDocument>,
  tokenizer: ContextTokenizer,
  options: ContextOptions,
): AsyncGenerator<TokenContext> {
  const { contextLength, pack, start = { document: 0, token: 0 } } = options;
  const context = new OpenContext(options);
  for await (const { index, document } of documents) {
    if (index < start.document) continue;
    const ids = tokensOf(document, tokenizer, options);
    const end = pack ? ids.length : Math.min(ids.length, contextLength);
    for (let at = index === start.document ? start.token : 0; at < end;) {
      at += context.add(ids, at, end, index);
      const isWhole = at === end;
      if (context.isFull || (isWhole && !pack)) {
        yield context.close(
          isWhole
            ? { document: index + 1, token: 0 }
            : { document: index, token: at },
        );
      }
    }
  }
  if (!context.isEmpty) yield context.close();
}

/** A document's tokens, with the separator if there is to be one. */
function tokensOf(
  document: CorpusDocument,
  tokenizer: ContextTokenizer,
  { separator, startTokenId }: ContextOptions,
): number[] {
  let text: string;
  if ("messages" in document) {
    try {
      text = tokenizer.applyChatTemplate(document.messages);
    } catch (cause) {
      const reason = cause instanceof Error ? cause.message : String(cause);
      throw new Error(`Cannot read ${document.id}: ${reason}`, { cause });
    }
  } else text = document.text;
  const ids = tokenizer.encode(text, { addSpecial: false });
  // Chat templates write the start token themselves.
  return separator && ids[0] !== startTokenId ? [startTokenId, ...ids] : ids;
}

/** The context that is being filled. */
class OpenContext {
  readonly #options: ContextOptions;
  #ids: Uint32Array<ArrayBuffer>;
  #documents: Int32Array<ArrayBuffer>;
  #length = 0;
  #start: TextPosition = { document: 0, token: 0 };

  constructor(options: ContextOptions) {
    this.#options = options;
    this.#ids = new Uint32Array(options.contextLength);
    this.#documents = new Int32Array(options.contextLength);
  }

  get isEmpty(): boolean {
    return this.#length === 0;
  }

  get isFull(): boolean {
    return this.#length === this.#ids.length;
  }

  /** Takes the tokens [at, end) as far as there is room; how many it took. */
  add(
    ids: readonly number[],
    at: number,
    end: number,
    document: number,
  ): number {
    if (this.isEmpty) this.#start = { document, token: at };
    const n = Math.min(end - at, this.#ids.length - this.#length);
    for (let i = 0; i < n; i++) this.#ids[this.#length + i] = ids[at + i]!;
    this.#documents.fill(document, this.#length, this.#length + n);
    this.#length += n;
    return n;
  }

  /** What it holds; it is empty then. Without a next position the text is at its end. */
  close(next?: TextPosition): TokenContext {
    const { skipFirst, skipTokens } = this.#options;
    const T = this.#length;
    const ids = this.#ids.slice(0, T);
    const documents = this.#documents.slice(0, T);
    this.#length = 0;
    return {
      ids,
      documents,
      positions: Int32Array.from(ids.keys()),
      kept: Uint8Array.from(
        ids,
        (id, position) => position < skipFirst || skipTokens.has(id) ? 0 : 1,
      ),
      start: this.#start,
      next: next ?? { document: documents[T - 1]! + 1, token: 0 },
    };
  }
}
