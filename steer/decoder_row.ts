/**
 * A reply's row of the batch that a {@link Decoder} decodes.
 * @module
 */
import type { Reply } from "./reply.ts";

/** A reply that has a row. */
export interface Row {
  readonly reply: Reply;
  /** Row of the cache's table and of the sampler. */
  readonly index: number;
  /** What it reads before it decodes: the prompt, and what had arrived of the reply when it joined. */
  readonly start: readonly number[];
  /** Tokens of `start` that are in the cache. */
  nRead: number;
  /** Reply tokens that are sampled: arrived, or under way. */
  nSampled: number;
  /** The reply's changes of steering that tokens under way know of. */
  nChanges: number;
}

/** The tokens that a row reads in a pass. */
export interface RowTokens {
  readonly row: Row;
  /** Token ids; of a token that only the GPU knows any. */
  readonly ids: readonly number[];
  /** Position of the first of them. */
  readonly position: number;
}

/** Tokens of a row that are under way: `n` of them, one a step. */
export interface Shipment {
  readonly row: Row;
  readonly n: number;
  /** The row's changes when they were recorded. */
  readonly nChanges: number;
}

/** Whether all that a row reads before it decodes is in the cache. */
export function isRead({ start, nRead }: Row): boolean {
  return nRead === start.length;
}

/** Tokens that a row may still sample. */
export function nLeft({ reply, nSampled }: Row): number {
  return reply.request.maxNewTokens - nSampled;
}

/** The last sampled token of a row, which its next step reads. */
export function lastToken(row: Row): RowTokens {
  const { reply: { request: { prompt } }, nSampled } = row;
  return { row, ids: [0], position: prompt.length + nSampled - 1 };
}

/** `n` tokens of a row, from now on under way. */
export function shipment(row: Row, n: number): Shipment {
  return { row, n, nChanges: row.nChanges };
}
