/**
 * The k largest activations of each row, or of all rows together, over any number of feature windows.
 *
 * Nothing is sorted: the k-th largest is found digit by digit from counts, four passes over the
 * activations. All ties of it are kept, and nothing that is not above 0. The result does not depend on
 * the order in which the GPU works. What is not finite counts as largest and is kept, so that it shows.
 * @module
 */
import type { Recorder, Tensor } from "../gpu/mod.ts";
import { saeTopKCopy } from "./sae_topk_copy.ts";
import { saeTopKCount } from "./sae_topk_count.ts";
import { saeTopKKeep } from "./sae_topk_keep.ts";
import { saeTopKPick } from "./sae_topk_pick.ts";

/** Where the digits of the 31 bits of an activation start, the highest first. */
const SHIFTS = [23, 15, 7, 0] as const;

/** Counts of one digit. */
export const TOPK_BINS = 256;

/** What a selection works in; `slots` is the number of rows, or 1 to select from all rows together. */
export interface TopKTensors {
  /** u32 `[slots, 256]`; all 0 before and after. */
  readonly counts: Tensor;
  /**
   * u32 `[slots, 2]`. Afterwards the first of a slot is the smallest activation that it keeps, as f32 bits:
   * the k-th largest, or the smallest above 0 where fewer than k are, or 0 where none is.
   */
  readonly thresholds: Tensor;
}

/** Activations to select from. */
export interface TopKWindow {
  /** f32 `[T, window]`, not negative. */
  readonly acts: Tensor;
  /** u32 `[window]`; a feature takes part if its mark is at least `least`. Needed where that is above 0. */
  readonly marks?: Tensor;
}

/** How many to keep, and of which features. */
export interface TopKOptions {
  /** Activations that each slot keeps, 1 or more: k for one row, k·T for all rows together. */
  readonly k: number;
  /** Least mark of a feature that takes part; all do when absent or 0. */
  readonly least?: number;
}

/**
 * Records the search for the thresholds above which activations are kept.
 * @throws {RangeError} If a window's rows do not fit the slots, or k is no positive integer.
 */
export function selectTopK(
  rec: Recorder,
  windows: readonly TopKWindow[],
  { counts, thresholds }: TopKTensors,
  { k, least = 0 }: TopKOptions,
): void {
  const slots = thresholds.nRows;
  if (!Number.isSafeInteger(k) || k < 1 || k >= 2 ** 32) {
    throw new RangeError(
      `Cannot select the largest activations: expected a positive number of them: got ${k}`,
    );
  }
  for (const { acts } of windows) checkSlots(acts, slots);
  for (const shift of SHIFTS) {
    for (const { acts, marks } of windows) {
      saeTopKCount.run(rec, {
        acts,
        marks: marksOf({ acts, marks }, thresholds, least),
        found: thresholds,
        counts,
      }, { shift, least });
    }
    saeTopKPick.run(rec, { counts, found: thresholds }, { shift, k });
  }
}

/** Records acts = acts ≥ threshold ? acts : 0 in place, f32 `[T, window]`, after {@link selectTopK} without marks. */
export function keepTopK(
  rec: Recorder,
  acts: Tensor,
  { thresholds }: Pick<TopKTensors, "thresholds">,
): void {
  checkSlots(acts, thresholds.nRows);
  saeTopKKeep.run(rec, { thresholds, acts });
}

/** Records kept = what {@link selectTopK} selected of a window, f32 `[T, window]`, and 0 for the rest; its acts stay. */
export function copyTopK(
  rec: Recorder,
  { acts, marks }: TopKWindow,
  kept: Tensor,
  { thresholds }: Pick<TopKTensors, "thresholds">,
  least = 0,
): void {
  checkSlots(acts, thresholds.nRows);
  saeTopKCopy.run(rec, {
    acts,
    marks: marksOf({ acts, marks }, thresholds, least),
    thresholds,
    kept,
  }, { least });
}

/** Without a lower bound marks are not read, and any words can stand in for them. */
function marksOf(
  { acts, marks }: { acts: Tensor; marks: Tensor | undefined },
  thresholds: Tensor,
  least: number,
): Tensor {
  if (least === 0) return thresholds.reshape([2 * thresholds.nRows]);
  if (marks?.nRows === acts.shape[1]) return marks!;
  throw new RangeError(
    `Cannot select from features of ${acts} marked ${least} or more: expected a mark for each: got ${
      marks ?? "none"
    }`,
  );
}

function checkSlots(acts: Tensor, slots: number): void {
  if (slots === 1 || slots === acts.nRows) return;
  throw new RangeError(
    `Cannot select from ${acts}: expected thresholds for ${acts.nRows} rows or one for all: got ${slots}`,
  );
}
