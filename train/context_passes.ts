/**
 * Contexts of a text in runs that go through a model at once.
 * @module
 */
import { type ModelFolder, startTokenId } from "../core/model_folder.ts";
import type { ReadCorpus } from "../core/text.ts";
import {
  type ContextOptions,
  type TextPosition,
  type TokenContext,
  tokenContexts,
} from "../core/token_contexts.ts";

/** How documents are cut and put together. */
export interface PassConfig
  extends Omit<ContextOptions, "start" | "startTokenId"> {
  /** A pass ends before the context that would bring it past this many tokens. */
  readonly tokensPerPass: number;
  /** The text ends before the document of this number; at its end when absent. */
  readonly maxDocuments?: number;
}

/** The beginning of every text. */
export const TEXT_START: TextPosition = { document: 0, token: 0 };

/**
 * The contexts from a position on, in runs for one pass. What a run holds depends on
 * its first context alone, so that passes can be found again: by the `start` of that context.
 */
export async function* contextPasses(
  read: ReadCorpus,
  model: ModelFolder,
  config: PassConfig,
  start: TextPosition = TEXT_START,
): AsyncGenerator<TokenContext[]> {
  const { tokensPerPass, maxDocuments } = config;
  const contexts = tokenContexts(
    read(start.document, maxDocuments),
    model.tokenizer,
    { ...config, startTokenId: startTokenId(model), start },
  );
  let run: TokenContext[] = [];
  let nTokens = 0;
  for await (const context of contexts) {
    const { length } = context.ids;
    if (run.length > 0 && nTokens + length > tokensPerPass) {
      yield run;
      run = [];
      nTokens = 0;
    }
    run.push(context);
    nTokens += length;
  }
  if (run.length > 0) yield run;
}
