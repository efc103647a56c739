import type { Olmo2 } from "../core/olmo2.ts";
import { Decoder } from "./decoder.ts";
import {
  checkRequests,
  type GenerateOptions,
  type GenerateRequest,
  mostRows,
} from "./generate_request.ts";
import type { Reply } from "./reply.ts";

export {
  type GenerateOptions,
  type GenerateRequest,
  GREEDY,
  type Sampling,
  type SteeredPositions,
} from "./generate_request.ts";

/** Replies that are decoded at once, where an adapter holds logits of as many. */
const MOST_ROWS = 256;

/**
 * Generates all replies in one batch; every decoding step is one pass over the weights. A {@link Decoder} is the way for
 * replies that come and go.
 * @returns New token ids per request, without the one that ended it.
 * @throws {RangeError} If a prompt is empty or, with `maxNewTokens`, longer than the model's context,
 * if a number is out of range, or if the cache has no room for a reply.
 * @throws {Error} If logits are not finite, as too strong a steering makes them.
 */
export async function generate(
  model: Olmo2,
  requests: readonly GenerateRequest[],
  options: GenerateOptions,
): Promise<number[][]> {
  checkRequests(model, requests, options);
  const { maxNewTokens, stopIds, positions, steering, onTokens, signal } =
    options;
  if (requests.length === 0 || maxNewTokens === 0) {
    return requests.map(() => []);
  }
  const maxRows = Math.min(requests.length, MOST_ROWS, mostRows(model));
  using decoder = new Decoder(model, {
    maxRows,
    prefillTokens: requests.reduce((n, { prompt }) => n + prompt.length, 0),
    ...(steering && { steering }),
  });
  const replies = requests.map((request, i) =>
    decoder.add({
      ...request,
      maxNewTokens,
      ...(stopIds && { stopIds }),
      ...(positions && { positions }),
      ...(onTokens && {
        onTokens: ({ ids, activations }) => onTokens(i, ids, activations),
      }),
    })
  );
  while (!decoder.isIdle && !signal?.aborted) {
    await decoder.turn();
    replies.forEach(checkReply);
  }
  return replies.map(({ ids }) => [...ids]);
}

/**
 * Throws if a reply ended for a reason that nobody wants.
 * @throws {RangeError} If the cache had no room for it.
 * @throws {Error} If its logits were not finite.
 */
export function checkReply({ end, request, ids }: Reply): void {
  if (end === "faulty") {
    throw new Error(
      "Cannot choose the next token: expected finite logits: got NaN or infinity: steer less strongly",
    );
  }
  if (end === "memory") {
    throw new RangeError(
      `Cannot cache the ${
        request.prompt.length + ids.length
      } tokens of a prompt and its reply: expected fewer tokens of all replies at once: ask for fewer at a time, or a shorter prompt`,
    );
  }
}
