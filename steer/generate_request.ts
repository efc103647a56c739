/**
 * What to generate.
 * @module
 */
import type { Olmo2 } from "../core/olmo2.ts";
import { checkTokenIds } from "../core/token_batch.ts";
import type { SteeringBank } from "./interventions.ts";
import { checkSamplingSettings, type Sampling } from "./sampling.ts";
import { TokenDraw } from "./token_draw.ts";

export { GREEDY, type Sampling } from "./sampling.ts";

/** One reply to generate. */
export interface GenerateRequest {
  /** Token ids of the prompt; at least one. */
  readonly prompt: readonly number[];
  /** How its tokens are chosen. */
  readonly sampling: Sampling;
  /** Index of the set in the steering bank that steers this reply; none when absent. */
  readonly steeringSet?: number;
  /**
   * Called with each new token in order; true ends the reply with this token, which is part of it.
   * `ReplyText` tells it of stop strings.
   */
  readonly stop?: (id: number) => boolean;
}

/**
 * Which tokens are steered: all, or only generated ones. Prompt tokens that were steered stay
 * so in the cache. With `generated`, the first new token is chosen by an unsteered prompt.
 * Both steer the embedded model alike: measured, their concept rates differ by chance only.
 */
export type SteeredPositions = "all" | "generated";

/** Options of `generate`. */
export interface GenerateOptions {
  /** Most new tokens of a reply. */
  readonly maxNewTokens: number;
  /** A reply ends before one of these; the model's end-of-text ids when absent. */
  readonly stopIds?: readonly number[];
  /** Sets of interventions that requests name. */
  readonly steering?: SteeringBank;
  /** `all` when absent. */
  readonly positions?: SteeredPositions;
  /**
   * Called with each reply's new tokens as they arrive, several at a time, and for each token the activations of the
   * features that its steering set watches, at the position that it was chosen from.
   */
  readonly onTokens?: (
    request: number,
    ids: readonly number[],
    activations: readonly (readonly number[])[],
  ) => void;
  /** Stops before the next tokens are computed; what has arrived is returned. */
  readonly signal?: AbortSignal;
}

/** Rows of logits that the adapter binds at once. */
export function mostRows({ gpu, config }: Olmo2): number {
  return TokenDraw.mostRows(gpu, config.vocab_size);
}

/** Throws unless the model can generate what is asked for. */
export function checkRequests(
  model: Olmo2,
  requests: readonly GenerateRequest[],
  { maxNewTokens, steering }: GenerateOptions,
): void {
  for (const request of requests) {
    checkRequest(model, request, maxNewTokens, steering);
  }
}

/** Throws unless the model can generate a reply of up to `maxNewTokens` tokens. */
export function checkRequest(
  model: Olmo2,
  { prompt, sampling, steeringSet }: GenerateRequest,
  maxNewTokens: number,
  steering: SteeringBank | undefined,
): void {
  const { context_length, vocab_size } = model.config;
  if (!Number.isSafeInteger(maxNewTokens) || maxNewTokens < 0) {
    throw new RangeError(
      `Cannot generate: expected a whole number of new tokens, 0 or more: got ${maxNewTokens}`,
    );
  }
  if (prompt.length === 0) {
    throw new RangeError(
      "Cannot generate: expected a prompt of at least one token: got none",
    );
  }
  if (prompt.length + maxNewTokens > context_length) {
    throw new RangeError(
      `Cannot generate ${maxNewTokens} tokens after a prompt of ${prompt.length}: the model's context is ${context_length}: shorten the prompt or ask for fewer tokens`,
    );
  }
  checkTokenIds(prompt, vocab_size);
  checkSamplingSettings(sampling, vocab_size);
  if (steeringSet !== undefined) {
    checkSteeringSet(model, steeringSet, steering);
  }
}

function checkSteeringSet(
  { nLayers }: Olmo2,
  set: number,
  steering: SteeringBank | undefined,
): void {
  if (!steering) {
    throw new RangeError(
      `Cannot steer by set ${set}: expected a steering bank: got none`,
    );
  }
  steering.watchedOf(set); // throws where there is no such set
  const deepest = steering.layers.at(-1) ?? 0;
  if (deepest < nLayers) return;
  throw new RangeError(
    `Cannot steer after block ${deepest}: expected a layer from 0 to ${
      nLayers - 1
    }, as the model has ${nLayers}`,
  );
}
