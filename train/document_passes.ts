/**
 * Documents in runs that go through a model at once.
 * @module
 */
import { type ModelFolder, startTokenId } from "../core/model_folder.ts";
import type { CorpusDocument } from "../core/text.ts";
import {
  type TokenizedDocument,
  tokenizeDocuments,
} from "../core/tokenized_text.ts";

/** How documents are cut and put together. */
export interface PassConfig {
  /** Documents are cut at this many tokens. */
  readonly contextLength: number;
  /** A pass ends before the document that would bring it past this many tokens. */
  readonly tokensPerPass: number;
  /** Most documents; all when absent. */
  readonly maxDocuments?: number;
}

/**
 * The documents from `first` on, in runs for one pass. What a run holds depends on
 * its first document alone, so that passes can be found again.
 * @param documents All documents of the text, in order.
 */
export async function* documentPasses(
  documents: AsyncIterable<CorpusDocument>,
  model: ModelFolder,
  { contextLength, tokensPerPass, maxDocuments = Infinity }: PassConfig,
  first: number,
): AsyncGenerator<TokenizedDocument[]> {
  const tokenized = tokenizeDocuments(
    slice(documents, first, maxDocuments),
    model.tokenizer,
    { startTokenId: startTokenId(model), contextLength },
  );
  let run: TokenizedDocument[] = [];
  let nTokens = 0;
  for await (const document of tokenized) {
    const { length } = document.ids;
    if (run.length > 0 && nTokens + length > tokensPerPass) {
      yield run;
      run = [];
      nTokens = 0;
    }
    run.push({ ...document, index: first + document.index });
    nTokens += length;
  }
  if (run.length > 0) yield run;
}

/** Items `[start, end)`, without asking for one more. */
async function* slice<T>(
  items: AsyncIterable<T>,
  start: number,
  end: number,
): AsyncGenerator<T> {
  let i = 0;
  if (start >= end) return;
  for await (const item of items) {
    if (i >= start) yield item;
    if (++i >= end) return;
  }
}
