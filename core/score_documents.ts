import type { Olmo2 } from "./olmo2.ts";
import { scoreSequences, type ScoringPass } from "./score.ts";
import { type ScoreWindow, scoreWindows } from "./score_windows.ts";

/** A window of a document that is read in a pass. */
export interface DocumentWindow extends ScoreWindow {
  /** Index of the document. */
  readonly document: number;
}

/** Options of {@link scoreDocuments}. */
export interface ScoreDocumentsOptions {
  /** Tokens that are read at once of a document: at most the model's context. */
  readonly window: number;
  /** Tokens that a window after the first scores: fewer see more before them. */
  readonly stride: number;
  /** Tokens of one pass; 2048 when absent. */
  readonly tokensPerPass?: number;
  /** Called before each pass with what it reads, in order: for hooks that need host data. */
  readonly beforePass?: (windows: readonly DocumentWindow[]) => void;
  /** Called after every block; may change the residual stream in place. */
  readonly hook?: (pass: ScoringPass) => void;
}

/**
 * Negative log-likelihood of every token of documents of any length, in nats: element i of a document's result is that
 * of token i + 1, given the tokens before it in its window.
 * @param documents Token ids `[n]` of each, with its start token.
 * @throws {RangeError} If window or stride is out of range, or an id is not in the vocabulary.
 */
export async function scoreDocuments(
  model: Olmo2,
  documents: readonly Uint32Array[],
  options: ScoreDocumentsOptions,
): Promise<Float32Array[]> {
  const { window, stride, beforePass, ...rest } = options;
  const windows = documents.flatMap((ids, document) =>
    scoreWindows(ids.length, window, stride)
      .map((part): DocumentWindow => ({ ...part, document }))
  );
  const sequences = windows.map(({ document, start, end }) =>
    documents[document]!.subarray(start, end)
  );
  const nats = await scoreSequences(model, sequences, {
    ...rest,
    ...(beforePass && {
      beforePass: (first, n) => beforePass(windows.slice(first, first + n)),
    }),
  });
  const results = documents.map(({ length }) =>
    new Float32Array(Math.max(0, length - 1))
  );
  for (const [i, { document, start, scoredFrom }] of windows.entries()) {
    const scored = nats[i]!.subarray(scoredFrom - 1 - start);
    results[document]!.set(scored, scoredFrom - 1);
  }
  return results;
}
