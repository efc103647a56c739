/**
 * The sparse path of a training step, as GPU commands: lists of entries, and what
 * is computed from them at the cost of the entries rather than of all features.
 * @module
 */
import { windowOf } from "../core/sae.ts";
import type { Recorder, Tensor } from "../gpu/mod.ts";
import { openGate } from "../kernels/open_gate.ts";
import { saeBlockStarts } from "../kernels/sae_block_starts.ts";
import {
  saeColumnGradients,
  saeColumnGradientsBf16,
} from "../kernels/sae_column_gradients.ts";
import { saeColumnSums } from "../kernels/sae_column_sums.ts";
import { saeColumnThresholds } from "../kernels/sae_column_thresholds.ts";
import { saeDecodeEntries } from "../kernels/sae_decode_entries.ts";
import { saeEntries } from "../kernels/sae_entries.ts";
import { saeEntryDots } from "../kernels/sae_entry_dots.ts";
import { saeEntryGradients } from "../kernels/sae_entry_gradients.ts";
import { saeFeatureRuns } from "../kernels/sae_feature_runs.ts";
import { saeMarkEntries } from "../kernels/sae_mark_entries.ts";
import { saePath } from "../kernels/sae_path.ts";
import { saeRows } from "../kernels/sae_rows.ts";
import { saeSortEntries } from "../kernels/sae_sort_entries.ts";
import { type EntryLists, SPARSE } from "./entry_lists.ts";
import type { TrainingTensors } from "./training_tensors.ts";

/** Invocations of a workgroup that share a row: few on software drivers, where they are lanes of a SIMD register. */
const lanes = (rec: Recorder): number => rec.gpu.isSoftware ? 8 : 64;

/** Adds up the masks of all tiles, decides the path, and opens the gate for it. */
export function choosePath(
  rec: Recorder,
  lists: EntryLists,
  partials: Tensor,
  slot: number,
  most: number,
): void {
  const { rowEntries, rowStart, branch, gate } = lists;
  saeRows.run(rec, {
    tile_masks: lists.tileMasks,
    tile_sums: lists.tileSums,
    tile_starts: lists.tileStarts,
    row_entries: rowEntries,
    partials,
  }, { slot });
  saePath.run(rec, { row_entries: rowEntries, row_start: rowStart, branch }, {
    limit: most === 0 ? 0 : Math.min(most, lists.capacity) + 1,
  });
  openGate.run(rec, {
    branch,
    counts: rowStart,
    wanted: gate.wanted,
    allowed: gate.allowed,
  });
}

/** Fills the lists from the activations of all windows. */
export function gatherEntries(
  rec: Recorder,
  lists: EntryLists,
  acts: readonly Tensor[],
): void {
  rec.gated(lists.gate, { branch: SPARSE }, () => {
    for (const [w, { start, tile0 }] of lists.windows.entries()) {
      saeEntries.run(rec, {
        acts: acts[w]!,
        tile_masks: lists.tileMasks,
        tile_starts: lists.tileStarts,
        row_start: lists.rowStart,
        entries: lists.entries,
        entry_rows: lists.entryRows,
      }, { width: lists.tile, tile0, start });
    }
  });
}

/** err = acts·W_dec + b_dec − x, or with `adds` err += acts·W_dec. */
export function decodeEntries(
  rec: Recorder,
  lists: EntryLists,
  tensors: TrainingTensors,
  err: Tensor,
  options: { readonly adds: boolean },
): void {
  const { W_dec, b_dec } = tensors.parameters;
  rec.gated(lists.gate, { branch: SPARSE }, () => {
    for (const window of lists.windows) {
      saeDecodeEntries.run(rec, {
        entries: lists.entries,
        tile_starts: lists.tileStarts,
        row_start: lists.rowStart,
        W_dec: windowOf(W_dec.W, window),
        b_dec: b_dec.W,
        x: tensors.x,
        err,
      }, {
        LANES: lanes(rec),
        start: window.start,
        tile0: window.tile0,
        tile1: window.tile1,
        adds: Number(options.adds || window.start > 0),
      });
    }
  });
}

/** Records launches of which a workgroup works on so many entries; as many take place as there are entries for. */
function perEntries(
  rec: Recorder,
  { gate }: EntryLists,
  itemsPerWorkgroup: number,
  fill: () => void,
): void {
  rec.gated(gate, { branch: SPARSE, itemsPerWorkgroup }, fill);
}

/** A batch as products take it: what is stored times a scale. */
export interface StepInput {
  /** `[B, d_model]`: scaled f32, or packed bf16 as shards hold it, which takes half the loads. */
  readonly x: Tensor;
  /** What x is still to be multiplied by. */
  readonly scale: number;
}

/** What the gradients of a list's entries depend on besides the tensors. */
export interface EntryBackward {
  /** What was encoded. */
  readonly input: StepInput;
  /** f32 `[B, d_model]`: gradient of x̂ is `mean` times this. */
  readonly err: Tensor;
  /** See `err`. */
  readonly mean: number;
  /** λ / rows of the step, for the L1 term; 0 without one. */
  readonly l1: number;
  /** Vectors by which features age that do not fire; 0 leaves their age alone. */
  readonly tokens: number;
  /** λ / rows of the step and ε, for thresholds; undefined without those. */
  readonly threshold: { weight: number; bandwidth: number } | undefined;
}

/** Gradients of the weights, biases and thresholds of features that have entries. */
export function entriesBackward(
  rec: Recorder,
  lists: EntryLists,
  tensors: TrainingTensors,
  backward: EntryBackward,
): void {
  const { sort } = tensors;
  rec.clear(sort.bitmap); // not gated, as no copy is
  gradientsOfEntries(rec, lists, tensors, backward);
  sortEntries(rec, lists, tensors);
  rec.gated(lists.gate, { branch: SPARSE }, () => {
    gradientsOfFeatures(rec, lists, tensors, backward);
  });
}

function gradientsOfEntries(
  rec: Recorder,
  lists: EntryLists,
  { parameters, norms, sort }: TrainingTensors,
  { err, mean, l1 }: EntryBackward,
): void {
  const isSoftware = rec.gpu.isSoftware;
  const kernel = isSoftware ? saeEntryGradients : saeEntryDots;
  perEntries(rec, lists, isSoftware ? 256 : 4, () => {
    for (const window of lists.windows) {
      kernel.run(rec, {
        entries: lists.entries,
        entry_rows: lists.entryRows,
        row_start: lists.rowStart,
        err,
        W_dec: windowOf(parameters.W_dec.W, window),
        weights: windowOf(norms, window),
        dacts: sort.dacts,
      }, { start: window.start, mean, weight: l1 });
    }
  });
}

/** A counting sort by feature: marks, counts, starts, places. */
function sortEntries(
  rec: Recorder,
  lists: EntryLists,
  { sort }: TrainingTensors,
): void {
  const list = {
    entries: lists.entries,
    entry_rows: lists.entryRows,
    row_start: lists.rowStart,
  };
  const { blocks } = sort;
  perEntries(rec, lists, 64, () => {
    for (const window of lists.windows) {
      const bitmap = windowOf(sort.bitmap, window);
      saeMarkEntries.run(rec, { ...list, bitmap }, { start: window.start });
    }
  });
  rec.gated(lists.gate, { branch: SPARSE }, () => {
    for (const window of lists.windows) {
      saeFeatureRuns.run(rec, {
        bitmap: windowOf(sort.bitmap, window),
        runs: windowOf(sort.runs, window),
        blocks,
      }, { block0: window.block0 });
    }
    saeBlockStarts.run(rec, { blocks });
  });
  perEntries(rec, lists, 64, () => {
    for (const window of lists.windows) {
      saeSortEntries.run(rec, {
        ...list,
        dacts: sort.dacts,
        bitmap: windowOf(sort.bitmap, window),
        runs: windowOf(sort.runs, window),
        blocks,
        columns: sort.columns,
      }, { start: window.start, block0: window.block0 });
    }
  });
}

function gradientsOfFeatures(
  rec: Recorder,
  lists: EntryLists,
  tensors: TrainingTensors,
  { err, mean, l1, tokens, threshold, input: { x, scale } }: EntryBackward,
): void {
  const columnGradients = x.dtype === "bf16"
    ? saeColumnGradientsBf16
    : saeColumnGradients;
  const { W_enc, b_enc, W_dec, log_threshold } = tensors.parameters;
  for (const window of lists.windows) {
    const at = (tensor: Tensor): Tensor => windowOf(tensor, window);
    const { blocks, columns } = tensors.sort;
    const sorted = { runs: at(tensors.sort.runs), blocks, columns };
    const { block0 } = window;
    const [touched, l1_coef] = [at(tensors.touched), at(tensors.l1Coef)];
    if (threshold) {
      saeColumnThresholds.run(rec, {
        ...sorted,
        thresholds: at(tensors.thresholds!),
        touched,
        dlog: at(log_threshold!.grad),
      }, { block0, ...threshold });
    }
    saeColumnSums.run(rec, {
      ...sorted,
      norms: at(tensors.norms),
      db_enc: at(b_enc.grad),
      l1_coef,
      touched,
      tokens_since_fired: at(tensors.tokensSinceFired),
    }, { block0, tokens, l1 });
    columnGradients.run(rec, {
      ...sorted,
      touched,
      l1_coef,
      err,
      x,
      W_dec: at(W_dec.W),
      dW_dec: at(W_dec.grad),
      dW_enc: at(W_enc.grad),
    }, { block0, mean, scale, LANES: lanes(rec) });
  }
}
