import type { Olmo2Config } from "./olmo2_config.ts";

/**
 * Tokens of one forward pass: sequences of any lengths, one after the other,
 * without padding. Token t belongs to the sequence whose cache starts at slot
 * `places[2t]`, and stands at position `places[2t + 1]` in it.
 */
export interface TokenBatch {
  /** Token ids, `[T]`. */
  readonly ids: Uint32Array<ArrayBuffer>;
  /** Cache base and position of each token, `[T, 2]`. */
  readonly places: Uint32Array<ArrayBuffer>;
}

/** One sequence's share of a {@link TokenBatch}. */
export interface SequencePart {
  /** Token ids in order. */
  readonly ids: ArrayLike<number>;
  /** First cache slot of the sequence. */
  readonly base: number;
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
    for (let i = 0; i < part.ids.length; i++, t++) {
      const id = part.ids[i]!;
      if (!(Number.isInteger(id) && id >= 0 && id < config.vocab_size)) {
        throw new RangeError(
          `Cannot run token ${id}: expected an id from 0 to ${
            config.vocab_size - 1
          }`,
        );
      }
      ids[t] = id;
      places[2 * t] = part.base;
      places[2 * t + 1] = part.position + i;
    }
  }
  return { ids, places };
}

/** Whole sequences, each in as many slots as it has tokens. */
export function wholeSequences(
  config: Olmo2Config,
  sequences: readonly ArrayLike<number>[],
): TokenBatch {
  let base = 0;
  const parts = sequences.map((ids) => {
    const part = { ids, base, position: 0 };
    base += ids.length;
    return part;
  });
  return tokenBatch(config, parts);
}
