/**
 * Documents as token ids, one a context.
 * @module
 */
import type { ConceptSpan } from "./storybook.ts";
import type { CorpusDocument } from "./text.ts";
import type { Tokenizer } from "./tokenizer.ts";

/** A document as the model reads it. */
export interface TokenizedDocument {
  /** Its index in the corpus, from 0. */
  readonly index: number;
  /** Where it comes from. */
  readonly id: string;
  /** Its text; that of the chat template for a conversation. */
  readonly text: string;
  /** Token ids `[n]`; the first is the start token. */
  readonly ids: Uint32Array<ArrayBuffer>;
  /** Index of the first UTF-16 code unit in `text` of each token; -1 for a start token that is not in the text. */
  readonly starts: Int32Array<ArrayBuffer>;
  /** What it is about, where that is known. */
  readonly spans?: readonly ConceptSpan[];
}

/** How documents become tokens. */
export interface TokenizeOptions {
  /** Token before each document: the model's `<|endoftext|>`. */
  readonly startTokenId: number;
  /** Documents are cut at this many tokens, the start token included. */
  readonly contextLength: number;
}

/**
 * Documents as token ids, one a context: the start token and the text, cut at
 * the context length. What is cut off is not read; nothing is joined.
 */
export async function* tokenizeDocuments(
  documents: AsyncIterable<CorpusDocument> | Iterable<CorpusDocument>,
  tokenizer: Pick<Tokenizer, "encodeWithOffsets" | "applyChatTemplate">,
  { startTokenId, contextLength }: TokenizeOptions,
): AsyncGenerator<TokenizedDocument> {
  let index = 0;
  for await (const document of documents) {
    const text = "messages" in document
      ? tokenizer.applyChatTemplate(document.messages)
      : document.text;
    const { ids, starts } = tokenizer.encodeWithOffsets(text);
    // Chat templates write the start token themselves.
    if (ids[0] !== startTokenId) {
      ids.unshift(startTokenId);
      starts.unshift(-1);
    }
    yield {
      index: index++,
      id: document.id,
      text,
      ids: Uint32Array.from(ids.slice(0, contextLength)),
      starts: Int32Array.from(starts.slice(0, contextLength)),
      ...("spans" in document && document.spans
        ? { spans: document.spans }
        : {}),
    };
  }
}

/** The concept of each token, `[n]`: that of the span in which its first character lies, undefined outside of all. */
export function conceptsOfTokens(
  { starts, spans = [] }: Pick<TokenizedDocument, "starts" | "spans">,
): (string | undefined)[] {
  return Array.from(
    starts,
    (start) =>
      spans.find((span) => span.start <= start && start < span.end)?.concept,
  );
}
