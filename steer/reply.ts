/**
 * One reply of a {@link Decoder}: what is asked for, and what has come.
 * @module
 */
import type { GenerateRequest, SteeredPositions } from "./generate_request.ts";

/** A reply to decode; every reply of a batch has settings of its own. */
export interface ReplyRequest extends GenerateRequest {
  /** Most new tokens; at least one, and with the prompt no more than the model's context. */
  readonly maxNewTokens: number;
  /** The reply ends before one of these; the model's end-of-text ids when absent. */
  readonly stopIds?: readonly number[];
  /** Which tokens are steered; `all` when absent. */
  readonly positions?: SteeredPositions;
  /** Called with new tokens as they arrive, several at a time. */
  readonly onTokens?: (tokens: NewTokens) => void;
}

/** Tokens that arrived together. */
export interface NewTokens {
  /** Token ids, in order. */
  readonly ids: readonly number[];
  /**
   * Activations of the watched features of the reply's steering set, one row a token: at the position that the token was
   * chosen from, before anything was changed there. Empty rows where nothing is watched.
   */
  readonly activations: readonly (readonly number[])[];
}

/**
 * Why a reply ended: `stop`: a stop token or string; `length`: `maxNewTokens`; `memory`: the cache has no page left for
 * it; `cancelled`; `faulty`: its logits were not finite, as too strong a steering makes them.
 */
export type ReplyEnd = "stop" | "length" | "memory" | "cancelled" | "faulty";

/** A reply under way, or ended. */
export class Reply {
  /** What was asked for. */
  readonly request: ReplyRequest;
  readonly #ids: number[] = [];
  readonly #stopIds: ReadonlySet<number>;
  #end: ReplyEnd | undefined;
  #steeringSet: number | undefined;
  #nChanges = 0;

  /** For {@link Decoder.add}. */
  constructor(request: ReplyRequest, stopIds: readonly number[]) {
    this.request = request;
    this.#stopIds = new Set(stopIds);
    this.#steeringSet = request.steeringSet;
  }

  /** New tokens so far, without the stop token. */
  get ids(): readonly number[] {
    return this.#ids;
  }

  /** Why it ended; undefined while it goes on. */
  get end(): ReplyEnd | undefined {
    return this.#end;
  }

  /** The steering set that its next tokens obey. */
  get steeringSet(): number | undefined {
    return this.#steeringSet;
  }

  /** How often {@link steer} was called. */
  get nChanges(): number {
    return this.#nChanges;
  }

  /**
   * Steers the next token that arrives, and all after it, by another set, or by the same one after it was replaced in the
   * bank. Tokens that are computed but have not arrived are dropped and computed again. What is cached of earlier tokens
   * stays as it is: later tokens attend to keys and values as they were steered then.
   */
  steer(steeringSet: number | undefined): void {
    this.#steeringSet = steeringSet;
    this.#nChanges++;
  }

  /** Ends the reply; no more tokens arrive. */
  cancel(): void {
    this.finish("cancelled");
  }

  /** Ends the reply for a reason, if it goes on; for {@link Decoder}. */
  finish(end: ReplyEnd): void {
    this.#end ??= end;
  }

  /** Takes sampled tokens, as far as the reply goes; for {@link Decoder}. */
  deliver(
    sampled: readonly number[],
    activations: readonly (readonly number[])[],
    vocabSize: number,
  ): void {
    const first = this.#ids.length;
    for (const id of sampled) {
      if (this.#end) break;
      this.#take(id, vocabSize);
    }
    const ids = this.#ids.slice(first);
    if (ids.length === 0) return;
    const { onTokens } = this.request;
    onTokens?.({ ids, activations: activations.slice(0, ids.length) });
  }

  #take(id: number, vocabSize: number): void {
    if (id >= vocabSize) return this.finish("faulty");
    if (this.#stopIds.has(id)) return this.finish("stop");
    this.#ids.push(id);
    if (this.request.stop?.(id)) this.finish("stop");
    if (this.#ids.length === this.request.maxNewTokens) this.finish("length");
  }
}
