import type { Olmo2Config } from "./olmo2_config.ts";

/**
 * Tokens of one forward pass: sequences of any lengths, one after the other,
 * without padding. Token t belongs to the sequence in row `places[2t]` of the
 * cache, and stands at position `places[2t + 1]` in it.
 */
export interface TokenBatch {
  /** Token ids, `[T]`. */
  readonly ids: Uint32Array<ArrayBuffer>;
  /** Row of the cache and position of each token, `[T, 2]`. */
  readonly places: Uint32Array<ArrayBuffer>;
}

/** One sequence's share of a {@link TokenBatch}. */
export interface SequencePart {
  /** Token ids in order. */
  readonly ids: ArrayLike<number>;
  /** The sequence's row of the cache. */
  readonly row: number;
  /** Position of the first of `ids` in the sequence; 0 unless earlier tokens are cached. */
  readonly position: number;
}

/**
 * Lays parts of sequences out for a pass.
 * @throws {RangeError} If an id is not in the vocabulary, or a sequence is longer than the model's context.
 */
export function tokenBatch(
  config: Olmo2Config,
  parts: readonly SequencePart[],
): TokenBatch {
  const nTokens = parts.reduce((sum, part) => sum + part.ids.length, 0);
  if (nTokens === 0) {
    throw new RangeError(
      "Cannot run the model: expected at least one token: got none",
    );
  }
  const ids = new Uint32Array(nTokens);
  const places = new Uint32Array(2 * nTokens);
  let t = 0;
  for (const part of parts) {
    const length = part.position + part.ids.length;
    if (length > config.context_length) {
      throw new RangeError(
        `Cannot run a sequence of ${length} tokens: the model's context is ${config.context_length}: shorten it`,
      );
    }
    checkTokenIds(part.ids, config.vocab_size);
    for (let i = 0; i < part.ids.length; i++, t++) {
      ids[t] = part.ids[i]!;
      places[2 * t] = part.row;
      places[2 * t + 1] = part.position + i;
    }
  }
  return { ids, places };
}

/**
 * Checks that a model has these tokens.
 * @throws {RangeError} If one is not in the vocabulary.
 */
export function checkTokenIds(
  ids: ArrayLike<number>,
  vocabSize: number,
): void {
  for (let i = 0; i < ids.length; i++) {
    const id = ids[i]!;
    if (Number.isInteger(id) && id >= 0 && id < vocabSize) continue;
    throw new RangeError(
      `Cannot run token ${id}: expected an id from 0 to ${vocabSize - 1}`,
    );
  }
}

/** Whole sequences, in rows 0, 1, … of the cache. */
export function wholeSequences(
  config: Olmo2Config,
  sequences: readonly ArrayLike<number>[],
): TokenBatch {
  const parts = sequences.map((ids, row) => ({ ids, row, position: 0 }));
  return tokenBatch(config, parts);
}
