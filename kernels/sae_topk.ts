/**
 * The k largest activations of each row, or of all rows together, over any number of feature windows.
 *
 * Nothing is sorted: the k-th largest is found digit by digit from counts. Most activations are far too
 * small: the largest of each group of neighbors come first, and since the k-th largest of these is at or below the
 * k-th largest of all, whatever lies below it is not counted. All ties of the k-th largest are kept, and
 * nothing that is not above 0. The result does not depend on the order in which the GPU works. What is
 * not finite counts as largest and is kept, so that it shows.
 * @module
 */
import type { Dtype, Recorder, Tensor } from "../gpu/mod.ts";
import { saeTopKCopy } from "./sae_topk_copy.ts";
import { saeTopKCount } from "./sae_topk_count.ts";
import { saeTopKKeep } from "./sae_topk_keep.ts";
import { saeTopKPeaks } from "./sae_topk_peaks.ts";
import { saeTopKPick } from "./sae_topk_pick.ts";

/** Counts of one digit. */
export const TOPK_BINS = 256;

/** Where the digits of the 31 bits of an activation start, the highest first. */
const SHIFTS = [23, 15, 7, 0] as const;
/** The first two digits of a lower bound tell it from what is below by 1 part in 256. */
const FLOOR_SHIFTS = [23, 15] as const;
/** Groups for each activation that is kept: with as many, few activations that are not kept lie above the bound. */
const GROUPS_PER_KEPT = 3;
/** Largest group; larger ones would make the first search no cheaper that matters. */
const LARGEST_GROUP = 32;

/** What a selection works in; {@link topKTensors} makes it. Without floors and peaks it is right too, but counts everything. */
export interface TopKTensors {
  /** u32 `[slots, 256]`, where slots is the number of rows, or 1 for all rows together; all 0 before and after. */
  readonly counts: Tensor;
  /**
   * u32 `[slots, 2]`. After a selection the first of a slot is the smallest activation that it keeps, as f32 bits:
   * the k-th largest, or the smallest above 0 where fewer than k are, or 0 where none is.
   */
  readonly thresholds: Tensor;
  /** u32 `[slots, 2]`; the first of each is a bound below which nothing is selected. */
  readonly floors?: Tensor;
  /** The largest of each group of activations, f32 `[T, groups]` for each window. */
  readonly peaks?: readonly Tensor[];
}

/** What selections are made from. */
export interface TopKShape {
  /** Most rows. */
  readonly T: number;
  /** Features of each window. */
  readonly windows: readonly number[];
  /** Activations that a row keeps, on average where all rows share them. */
  readonly k: number;
  /** Whether all rows together keep k·T, instead of each row k. */
  readonly isBatch: boolean;
}

/** The tensors of selections of a shape, by the owner's way to make them. */
export function topKTensors(
  tensor: (label: string, dtype: Dtype, shape: readonly number[]) => Tensor,
  { T, windows, k, isBatch }: TopKShape,
): Required<TopKTensors> {
  const slots = isBatch ? 1 : T;
  const d_sae = windows.reduce((sum, size) => sum + size, 0);
  const group = Math.floor(d_sae / (GROUPS_PER_KEPT * k));
  const size = Math.max(1, Math.min(group, LARGEST_GROUP));
  return {
    counts: tensor("topk.counts", "u32", [slots, TOPK_BINS]),
    floors: tensor("topk.floors", "u32", [slots, 2]),
    thresholds: tensor("topk.thresholds", "u32", [slots, 2]),
    peaks: windows.map((window) =>
      tensor("topk.peaks", "f32", [T, Math.ceil(window / size)])
    ),
  };
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
 * @param windows All windows, in the order of the tensors' peaks; their rows may be fewer than the tensors have.
 * @throws {RangeError} If the windows do not fit the tensors, marks are missing, or k is no positive integer.
 */
export function selectTopK(
  rec: Recorder,
  windows: readonly TopKWindow[],
  tensors: TopKTensors,
  { k, least = 0 }: TopKOptions,
): void {
  if (!Number.isSafeInteger(k) || k < 1 || k >= 2 ** 32) {
    throw new RangeError(
      `Cannot select the largest activations: expected a positive number of them: got ${k}`,
    );
  }
  if (tensors.peaks && windows.length !== tensors.peaks.length) {
    throw new RangeError(
      `Cannot select the largest activations: expected ${tensors.peaks.length} windows: got ${windows.length}`,
    );
  }
  const T = windows[0]!.acts.nRows;
  const counts = slotsOf(tensors.counts, T);
  const thresholds = slotsOf(tensors.thresholds, T);
  const floors = tensors.floors && slotsOf(tensors.floors, T);
  const anyWords = thresholds.reshape([2 * thresholds.nRows]);
  const parts = windows.map((window, w) => ({
    acts: window.acts,
    marks: marksOf(window, least) ?? anyWords,
    // An activation is the largest of itself.
    peaks: tensors.peaks?.[w]?.rows(0, T) ?? window.acts,
  }));
  if (floors && tensors.peaks) {
    for (const part of parts) saeTopKPeaks.run(rec, part, { least });
    const peaks = parts.map(({ peaks }) => ({
      acts: peaks,
      marks: anyWords,
      peaks,
    }));
    search(rec, peaks, { counts, found: floors }, FLOOR_SHIFTS, { k });
  }
  const found = { counts, found: thresholds, floors };
  search(rec, parts, found, SHIFTS, { k, least });
}

/** Records the search for some digits of the k-th largest, among those from the floors on. */
function search(
  rec: Recorder,
  parts: readonly { acts: Tensor; marks: Tensor; peaks: Tensor }[],
  { counts, found, floors }: {
    counts: Tensor;
    found: Tensor;
    floors?: Tensor | undefined;
  },
  shifts: readonly number[],
  { k, least = 0 }: TopKOptions,
): void {
  const bounds = { floors: floors ?? found, found, counts };
  for (const shift of shifts) {
    for (const part of parts) {
      saeTopKCount.run(rec, { ...part, ...bounds }, {
        shift,
        least,
        has_floors: floors ? 1 : 0,
      });
    }
    saeTopKPick.run(rec, { counts, found }, {
      shift,
      k,
      // A bound is one only if k are at or above it.
      all_or_none: shifts === FLOOR_SHIFTS ? 1 : 0,
    });
  }
}

/** Records acts = acts ≥ threshold ? acts : 0 in place, f32 `[T, window]`, after {@link selectTopK} without marks. */
export function keepTopK(
  rec: Recorder,
  acts: Tensor,
  tensors: Pick<TopKTensors, "thresholds">,
): void {
  const thresholds = slotsOf(tensors.thresholds, acts.nRows);
  saeTopKKeep.run(rec, { thresholds, acts });
}

/** Records kept = what {@link selectTopK} selected of a window, f32 `[T, window]`, and 0 for the rest; its acts stay. */
export function copyTopK(
  rec: Recorder,
  window: TopKWindow,
  kept: Tensor,
  tensors: Pick<TopKTensors, "thresholds">,
  least = 0,
): void {
  const thresholds = slotsOf(tensors.thresholds, window.acts.nRows);
  const marks = marksOf(window, least) ??
    thresholds.reshape([2 * thresholds.nRows]);
  const { acts } = window;
  saeTopKCopy.run(rec, { acts, marks, thresholds, kept }, { least });
}

/** The marks to bind; undefined where they are not read, and any words can stand in for them. */
function marksOf(
  { acts, marks }: TopKWindow,
  least: number,
): Tensor | undefined {
  if (least === 0) return undefined;
  if (marks?.nRows === acts.shape[1]) return marks;
  throw new RangeError(
    `Cannot select from features of ${acts} marked ${least} or more: expected a mark for each: got ${
      marks ?? "none"
    }`,
  );
}

/** The slots of T rows: as many, or the one for all. */
function slotsOf(tensor: Tensor, T: number): Tensor {
  if (tensor.nRows === 1) return tensor;
  if (T <= tensor.nRows) return tensor.rows(0, T);
  throw new RangeError(
    `Cannot select the largest activations of ${T} rows: expected at most ${tensor.nRows}`,
  );
}
