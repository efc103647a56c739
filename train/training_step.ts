/**
 * One training step as GPU commands: forward, backward by hand, Adam.
 *
 * Encoding is dense. What follows it has two ways to the same result: matrix products
 * over all features, or lists of the activations that are not 0. The GPU counts those
 * and takes the cheaper way; both are recorded, and the launches of one do nothing.
 * @module
 */
import { type FeatureWindow, windowOf } from "../core/sae.ts";
import type { Recorder, Tensor } from "../gpu/mod.ts";
import { adam } from "../kernels/adam.ts";
import { adamQ8 } from "../kernels/adam_q8.ts";
import { adamRows } from "../kernels/adam_rows.ts";
import { columnSums } from "../kernels/column_sums.ts";
import { matmul } from "../kernels/matmul.ts";
import { rowNorms } from "../kernels/row_norms.ts";
import { rowNormsWide } from "../kernels/row_norms_wide.ts";
import {
  ENCODE_JUMPRELU,
  ENCODE_JUMPRELU_TILES,
  ENCODE_SCALED,
  ENCODE_TILES,
} from "../kernels/sae_epilogues.ts";
import { saeCountDead } from "../kernels/sae_count_dead.ts";
import { rowParts } from "../kernels/sae_rows.ts";
import { saeSmallestKept } from "../kernels/sae_smallest_kept.ts";
import { saeStepStatus } from "../kernels/sae_step_status.ts";
import { saeThresholds } from "../kernels/sae_thresholds.ts";
import { saeTiles } from "../kernels/sae_tiles.ts";
import { keepTopK, selectTopK } from "../kernels/sae_topk.ts";
import { squareParts, sumSquares } from "../kernels/sum_squares.ts";
import { sumRowSquares } from "../kernels/sum_row_squares.ts";
import { auxBackward, selectAux } from "./aux_pass.ts";
import { decodeDense, denseBackward } from "./dense_pass.ts";
import type { StepValues } from "./schedule.ts";
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
  type Parameter,
  type TrainingTensors,
} from "./training_tensors.ts";

/** Columns of the table of partial sums. */
const GRADIENT = 0;
const ERROR = 1;

/** Decay of the average that becomes the threshold for inference: over the last hundred steps, while lr is almost 0. Longer, and a short run ends with the threshold of its beginning. */
const SMALLEST_KEPT_DECAY = 0.99;

/** A batch of a step. */
export interface BatchOfStep extends StepValues {
  /** Of the step, from 0. */
  readonly batch: number;
  /** Whether `tensors.rows` holds it too, as packed bf16. */
  readonly isPacked: boolean;
}

/**
 * Records the gradients of the batch in `tensors.x`. The first batch of a step
 * begins its sums, the others add to them.
 */
export function recordBatch(
  rec: Recorder,
  tensors: TrainingTensors,
  config: FullTrainerConfig,
  { batch, lambda, isPacked }: BatchOfStep,
): void {
  const input: StepInput = isPacked
    ? { x: tensors.rows, scale: config.inputScale }
    : { x: tensors.x, scale: 1 };
  const { lists } = tensors;
  const isFirst = batch === 0;
  const rows = config.batch * config.accumulate;
  if (isFirst) beginStep(rec, tensors);
  lists.gate.reset();
  tensors.aux?.lists.gate.reset();
  encode(rec, tensors, config, input);
  if (tensors.aux) selectAux(rec, tensors, config);
  select(rec, tensors, config);
  const slot = batch * rowParts(config.batch);
  choosePath(rec, lists, tensors.partials, slot, config.sparseEntries);
  const hasLists = config.sparseEntries > 0;
  if (hasLists) gatherEntries(rec, lists, tensors.acts);
  decodeDense(rec, tensors);
  if (hasLists) {
    decodeEntries(rec, lists, tensors, tensors.err, { adds: false });
  }
  const { err, parameters: { b_dec } } = tensors;
  columnSums.run(rec, { y: err, sums: b_dec.grad }, {
    adds: Number(!isFirst),
    scale: 2 / rows,
  });
  const isL1 = config.architecture === "relu";
  const backward = {
    input,
    err,
    mean: 2 / rows,
    l1: isL1 ? lambda / rows : 0,
    tokens: config.batch,
    threshold: config.architecture === "jumprelu"
      ? { weight: lambda / rows, bandwidth: config.bandwidth }
      : undefined,
  };
  // AuxK has chosen its entries by how long features had waited before this batch.
  denseBackward(rec, tensors, { ...backward, adds: !isFirst });
  if (hasLists) entriesBackward(rec, lists, tensors, backward);
  if (tensors.aux) auxBackward(rec, tensors, config, batch, input);
  addSquares(rec, tensors, err, errorSlot(config, batch), ERROR);
}

/** Records what ends a step after its last batch: norm of the gradient, metrics, Adam. */
export function recordUpdate(
  rec: Recorder,
  tensors: TrainingTensors,
  config: FullTrainerConfig,
  values: StepValues & { readonly step: number; readonly deadWindow?: number },
): void {
  const { partials, status, dead, lists, auxValues: aux } = tensors;
  let slot = errorSlot(config, config.accumulate);
  for (const [, parameter] of tensors.named()) {
    for (const { tensor, start, end } of parameter.grad.windows()) {
      const touched = parameter.touched.nRows === parameter.grad.nRows
        ? windowOf(parameter.touched, { start, end })
        : undefined;
      addSquares(rec, tensors, tensor, slot, GRADIENT, touched);
      slot += squareParts(flat(tensor).nRows);
    }
  }
  if (values.deadWindow !== undefined) {
    rec.clear(dead);
    saeCountDead.run(rec, { waited: tensors.tokensSinceFired, dead }, {
      dead_after: values.deadWindow,
    });
  }
  saeStepStatus.run(
    rec,
    { partials, aux, branch: lists.branch, dead, status },
    {
      rows: config.batch * config.accumulate,
      step: values.step,
      lambda: tensors.selection ? 0 : values.lambda,
      aux_weight: config.auxK > 0 ? config.auxCoefficient : 0,
      max_norm: config.clipNorm,
    },
  );
  if (tensors.selection) {
    saeSmallestKept.run(rec, {
      thresholds: tensors.selection.thresholds,
      status,
      average: tensors.smallestKept,
    }, { decay: SMALLEST_KEPT_DECAY, rest: 1 - SMALLEST_KEPT_DECAY });
  }
  for (const [, parameter] of tensors.named()) {
    update(rec, parameter, tensors, config, values);
  }
}

/** First row of the parts of a batch's squared error in the table of partial sums. */
function errorSlot(
  { batch, d_model, accumulate }: FullTrainerConfig,
  n: number,
): number {
  return accumulate * rowParts(batch) + n * squareParts(batch * d_model);
}

/** What holds for all batches of a step: norms, thresholds, and no gradient yet. */
function beginStep(rec: Recorder, tensors: TrainingTensors): void {
  const { parameters: { W_dec, log_threshold }, thresholds } = tensors;
  rec.clear(tensors.touched);
  const isWide = rec.gpu.isSoftware && W_dec.W.shape[1]! % 4 === 0;
  const kernel = isWide ? rowNormsWide : rowNorms;
  for (const { tensor: W, start, end } of W_dec.W.windows()) {
    kernel.run(rec, { W, norms: windowOf(tensors.norms, { start, end }) });
  }
  if (thresholds) {
    saeThresholds.run(rec, { log_thresholds: log_threshold!.W, thresholds });
  }
}

/** acts of all windows, and their tiles where the encoder makes them. */
function encode(
  rec: Recorder,
  tensors: TrainingTensors,
  { bandwidth }: FullTrainerConfig,
  input: StepInput,
): void {
  const { parameters, acts, thresholds, lists, encoder } = tensors;
  const { hasTiles, variant } = encoder;
  // Packed rows are half the loads, where the encoder's product turns its operands; each window turns them anew.
  const isTurned = input.x.dtype === "bf16" && variant.turns === true &&
    [...input.x.shape, variant.tile[0]].every((size) => size % 8 === 0);
  const { x: A, scale } = isTurned ? input : { x: tensors.x, scale: 1 };
  for (const [w, window] of lists.windows.entries()) {
    const at = (tensor: Tensor): Tensor => windowOf(tensor, window);
    const b_enc = at(parameters.b_enc.W);
    const W_enc = at(parameters.W_enc.W);
    const { tile0 } = window;
    const tiles = { masks: lists.tileMasks, sums: lists.tileSums, tile0 };
    matmul(rec, {
      layout: "mk,nk",
      A,
      B: W_enc,
      C: acts[w]!,
      variant,
      epilogue: {
        ...(thresholds
          ? {
            spec: hasTiles ? ENCODE_JUMPRELU_TILES : ENCODE_JUMPRELU,
            tensors: { b_enc, thresholds: at(thresholds) },
            values: { half_band: bandwidth / 2, scale },
          }
          : hasTiles
          ? {
            spec: ENCODE_TILES,
            tensors: { b_enc, norms: at(tensors.norms) },
            values: { scale },
          }
          : { spec: ENCODE_SCALED, tensors: { b_enc }, values: { scale } }),
        ...(hasTiles && { tiles }),
      },
    });
  }
}

/** Keeps the largest activations, where the architecture does, and marks the entries of every tile, where the encoder has not. */
function select(
  rec: Recorder,
  tensors: TrainingTensors,
  { architecture, k, batch }: FullTrainerConfig,
): void {
  const { selection, acts, lists } = tensors;
  if (selection) {
    selectTopK(rec, acts.map((acts) => ({ acts })), selection, {
      k: architecture === "batchtopk" ? k * batch : k,
    });
    for (const window of acts) keepTopK(rec, window, selection);
  }
  if (tensors.encoder.hasTiles) return;
  for (const [w, window] of lists.windows.entries()) {
    saeTiles.run(rec, {
      acts: acts[w]!,
      weights: windowOf(tensors.norms, window),
      tile_masks: lists.tileMasks,
      tile_sums: lists.tileSums,
    }, {
      width: lists.tile,
      tile0: window.tile0,
      counts: Number(architecture === "jumprelu"),
    });
  }
}

/** Parts of the squares of a tensor, from row `slot` of the table on; of the rows that are touched, where that is told. */
function addSquares(
  rec: Recorder,
  { partials }: TrainingTensors,
  tensor: Tensor,
  slot: number,
  column: number,
  touched?: Tensor,
): void {
  const values = flat(tensor);
  const n_parts = squareParts(values.nRows);
  const options = { n_parts, slot, column };
  if (touched && tensor.shape.length === 2 && tensor.shape[1]! % 4 === 0) {
    sumRowSquares.run(rec, { values: tensor, touched, partials }, options);
  } else {
    // Gradients of vectors are whole, and so are those of rows of an odd length, which only the dense path makes.
    sumSquares.run(rec, { values, partials }, options);
  }
}

/** Rows that lie in one buffer of everything that Adam works on: 8-bit moments take fewer bytes a row, so their buffers end elsewhere. */
function commonWindows({ W, m, v, scales }: Parameter): FeatureWindow[] {
  const ends = [W, m, v, ...(scales ? [scales] : [])].flatMap((tensor) =>
    [...tensor.windows()].map(({ end }) => end)
  );
  const sorted = [...new Set(ends)].sort((a, b) => a - b);
  return sorted.map((end, i) => ({ start: sorted[i - 1] ?? 0, end }));
}

/** Adam on one parameter. */
function update(
  rec: Recorder,
  parameter: Parameter,
  { status }: TrainingTensors,
  config: FullTrainerConfig,
  { step, lr }: StepValues & { readonly step: number },
): void {
  const { betas: [beta1, beta2], eps } = config;
  const t = step + 1;
  const values = {
    beta1,
    rest1: 1 - beta1,
    beta2,
    rest2: 1 - beta2,
    step_size: lr / (1 - beta1 ** t),
    v_scale: 1 / Math.sqrt(1 - beta2 ** t),
    eps,
  };
  const { touched, scales } = parameter;
  for (const window of commonWindows(parameter)) {
    const part = (tensor: Tensor): Tensor => windowOf(tensor, window);
    const [grad, m, v, W] = [
      part(parameter.grad),
      part(parameter.m),
      part(parameter.v),
      part(parameter.W),
    ];
    if (scales) {
      adamQ8.run(rec, {
        grad,
        touched: part(touched),
        status,
        m,
        v,
        scales: part(scales),
        W,
      }, { ...values, start: window.start, step });
    } else if (W.shape.length === 2 && W.shape[1]! % 4 === 0) {
      adamRows.run(
        rec,
        { grad, touched: part(touched), status, m, v, W },
        values,
      );
    } else {
      const table = touched.nRows === 1 ? touched : part(touched);
      const asRows = (tensor: Tensor): Tensor =>
        tensor.reshape([table.nRows, flat(tensor).nRows / table.nRows]);
      adam.run(rec, {
        grad: asRows(grad),
        touched: table,
        status,
        m: asRows(m),
        v: asRows(v),
        W: asRows(W),
      }, values);
    }
  }
}
