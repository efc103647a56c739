import type { HookPoint } from "../core/hook_point.ts";
import type { Olmo2 } from "../core/olmo2.ts";
import type { Sae } from "../core/sae.ts";
import {
  conceptsOfTokens,
  type TokenizedDocument,
} from "../core/tokenized_text.ts";
import {
  featureActivations,
  joinRows,
  type SparseActivations,
} from "./activations.ts";
import { type ConceptScore, conceptScores } from "./concept_f1.ts";

/** Options of {@link findConceptFeatures}. */
export interface ConceptFeatureOptions {
  /** Called as documents are done. */
  readonly onProgress?: (nDocuments: number) => void;
  readonly signal?: AbortSignal;
}

/**
 * The feature that tells each concept of a labelled text best from the rest, by F1 over all
 * tokens but the first of each document; see {@link conceptScores}.
 * @throws {RangeError} If no document has a concept.
 */
export async function findConceptFeatures(
  model: Olmo2,
  sae: Sae,
  hookPoint: HookPoint,
  documents: AsyncIterable<TokenizedDocument>,
  options: ConceptFeatureOptions = {},
): Promise<ConceptScore[]> {
  const skipFirst = 1;
  const parts: SparseActivations[] = [];
  const concepts: (string | undefined)[] = [];
  for await (
    const { sequence, acts } of featureActivations(
      model,
      sae,
      hookPoint,
      documents,
      { skipFirst },
    )
  ) {
    parts.push(acts);
    concepts.push(
      ...conceptsOfTokens({ ...sequence, spans: sequence.spans ?? [] }).slice(
        skipFirst,
      ),
    );
    options.onProgress?.(parts.length);
    options.signal?.throwIfAborted();
  }
  if (!concepts.some((concept) => concept !== undefined)) {
    throw new RangeError(
      "Cannot find the features of concepts: expected documents with labelled spans: got none",
    );
  }
  return conceptScores(joinRows(parts), concepts, sae.d_sae);
}
