/**
 * Pages of a cache in random order, and sizes of heads that kernels over it are tested with.
 * @module
 */
import { PAGE_TOKENS } from "../../core/kv_cache.ts";
import type { AttentionSizes } from "../reference/olmo2_reference.ts";
import type { Draw } from "./run_kernel.ts";

/** Heads of several sizes, alone and in groups that share keys. */
export const SIZES: readonly AttentionSizes[] = [
  { d_q: 16, d_kv: 16, d_head: 4 },
  { d_q: 72, d_kv: 24, d_head: 12 },
  { d_q: 160, d_kv: 80, d_head: 80 },
];

/** A row of the cache and a position in it. */
export type Place = readonly [row: number, position: number];

/** Pages of a cache, scattered at random: some belong to no row. */
export interface Scattered {
  readonly nSlots: number;
  readonly pagesPerRow: number;
  /** u32 `[rows, pagesPerRow]`; entries that no token needs lead to a page of no row. */
  readonly table: Uint32Array<ArrayBuffer>;
  /** Slots of a token's keys, in the order of positions. */
  slotsOf(place: Place): number[];
}

/** Gives the rows of some tokens pages in random order, among others that are not theirs. */
export function scatter(draw: Draw, places: readonly Place[]): Scattered {
  const nRows = 1 + Math.max(...places.map(([row]) => row));
  const counts = Array.from({ length: nRows }, (_, row) =>
    Math.max(
      0,
      ...places.filter(([at]) => at === row).map(([, position]) =>
        Math.floor(position / PAGE_TOKENS) + 1
      ),
    ));
  const nPages = counts.reduce((sum, n) => sum + n) + 3;
  const keys = draw(nPages);
  const order = [...keys.keys()].sort((a, b) => keys[a]! - keys[b]!);
  const pagesPerRow = Math.max(...counts) + 1;
  const table = new Uint32Array(nRows * pagesPerRow).fill(order.at(-1)!);
  for (const [row, n] of counts.entries()) {
    table.set(order.splice(0, n), row * pagesPerRow);
  }
  const slot = (row: number, s: number) =>
    table[row * pagesPerRow + Math.floor(s / PAGE_TOKENS)]! * PAGE_TOKENS +
    s % PAGE_TOKENS;
  return {
    nSlots: nPages * PAGE_TOKENS,
    pagesPerRow,
    table,
    slotsOf: ([row, position]) =>
      Array.from({ length: position + 1 }, (_, s) => slot(row, s)),
  };
}
