/**
 * AuxK, as GPU commands: dead features learn to explain what the others leave of the error.
 *
 * e = x − x̂ is held constant; ê is decoded without b_dec from the largest activations of
 * dead features. The loss is mean_b ‖e − ê‖² over the variance of e, times a coefficient.
 * Source: Gao et al. 2024, "Scaling and evaluating sparse autoencoders", A.2.
 * @module
 */
import { windowOf } from "../core/sae.ts";
import type { Recorder } from "../gpu/mod.ts";
import { columnSums } from "../kernels/column_sums.ts";
import { saeAuxScale } from "../kernels/sae_aux_scale.ts";
import { saeDeadTiles } from "../kernels/sae_dead_tiles.ts";
import { selectTopK } from "../kernels/sae_topk.ts";
import { scaleBy } from "../kernels/scale_by.ts";
import { squareParts, sumSquares } from "../kernels/sum_squares.ts";
import {
  choosePath,
  decodeEntries,
  entriesBackward,
  gatherEntries,
  type StepInput,
} from "./sparse_pass.ts";
import {
  flat,
  type FullTrainerConfig,
  type TrainingTensors,
} from "./training_tensors.ts";

/** Columns of the parts of squares. */
const ERROR = 1;
const REST = 2;

/** Lists the largest activations of dead features, before the others' selection takes them away. */
export function selectAux(
  rec: Recorder,
  tensors: TrainingTensors,
  { auxK, deadAfter }: FullTrainerConfig,
): void {
  const { lists, selection, squares } = tensors.aux!;
  const marks = lists.windows.map((window) =>
    windowOf(tensors.tokensSinceFired, window)
  );
  const windows = tensors.acts.map((acts, w) => ({ acts, marks: marks[w]! }));
  selectTopK(rec, windows, selection, { k: auxK, least: deadAfter });
  for (const [w, { tile0 }] of lists.windows.entries()) {
    saeDeadTiles.run(rec, {
      acts: tensors.acts[w]!,
      thresholds: selection.thresholds,
      waited: marks[w]!,
      tile_masks: lists.tileMasks,
      tile_sums: lists.tileSums,
    }, { width: lists.tile, tile0, dead_after: deadAfter });
  }
  // Its counts are no metric: they go where squares come later.
  choosePath(rec, lists, squares, 0, Infinity);
  gatherEntries(rec, lists, tensors.acts);
}

/** Adds AuxK's gradients, once `tensors.err` holds x̂ − x = −e. */
export function auxBackward(
  rec: Recorder,
  tensors: TrainingTensors,
  config: FullTrainerConfig,
  batch: number,
  input: StepInput,
): void {
  const { lists, u, mean, squares } = tensors.aux!;
  const { err, auxValues: aux } = tensors;
  const { auxCoefficient, accumulate } = config;
  rec.copy(err, u);
  decodeEntries(rec, lists, tensors, u, { adds: true });
  columnSums.run(rec, { y: err, sums: mean }, {
    adds: 0,
    scale: 1 / config.batch,
  });
  const n_parts = squareParts(flat(err).nRows);
  sumSquares.run(rec, { values: flat(err), partials: squares }, {
    n_parts,
    slot: 0,
    column: ERROR,
  });
  sumSquares.run(rec, { values: flat(u), partials: squares }, {
    n_parts,
    slot: n_parts,
    column: REST,
  });
  saeAuxScale.run(rec, { mean, squares, row_start: lists.rowStart, aux }, {
    B: config.batch,
    most: lists.capacity,
    adds: Number(batch > 0),
    factor: 2 * auxCoefficient / (config.batch * accumulate),
    share: 1 / accumulate,
  });
  scaleBy.run(rec, { factor: aux, values: flat(u) });
  entriesBackward(rec, lists, tensors, {
    input,
    err: u,
    mean: 1,
    l1: 0,
    tokens: 0,
    threshold: undefined,
  });
}
