/**
 * One training step as GPU commands: forward, backward by hand, Adam.
 * Five matrix products do the work; everything else is folded into their
 * results or is a pass over one tensor.
 * @module
 */
import type { Recorder, Tensor } from "../gpu/mod.ts";
import { decodeWindow, encodeWindow, windowOf } from "../core/sae.ts";
import { adam } from "../kernels/adam.ts";
import { columnSums } from "../kernels/column_sums.ts";
import { matmul } from "../kernels/matmul.ts";
import { rowNorms } from "../kernels/row_norms.ts";
import { DECODE_BACKWARD, ENCODE_BACKWARD } from "../kernels/sae_epilogues.ts";
import { featureParts, saeFeatureSums } from "../kernels/sae_feature_sums.ts";
import { saeStepStatus } from "../kernels/sae_step_status.ts";
import { squareParts, sumSquares } from "../kernels/sum_squares.ts";
import type { StepValues } from "./schedule.ts";
import {
  flat,
  PARAMETERS,
  type TrainerConfig,
  type TrainingTensors,
} from "./training_tensors.ts";

/** Columns of the table of partial sums. */
const GRADIENT = 0;
const ERROR = 1;

/** Records a step on the batch in `tensors.x`; steps count from 0. */
export function recordStep(
  rec: Recorder,
  tensors: TrainingTensors,
  config: TrainerConfig,
  step: StepValues & { readonly step: number },
): void {
  forward(rec, tensors);
  const nPartials = backward(rec, tensors, config.batch, step.lambda);
  measureSquares(rec, tensors, nPartials);
  const { partials, status } = tensors;
  saeStepStatus.run(rec, { partials, status }, {
    B: config.batch,
    step: step.step,
    lambda: step.lambda,
    max_norm: config.clipNorm,
  });
  update(rec, tensors, config, step);
}

/** acts = relu(x·W_encᵀ + b_enc), err = acts·W_dec + b_dec − x. */
function forward(rec: Recorder, tensors: TrainingTensors): void {
  const { parameters, x, err } = tensors;
  const sae = {
    W_enc: parameters.W_enc.W,
    b_enc: parameters.b_enc.W,
    W_dec: parameters.W_dec.W,
    b_dec: parameters.b_dec.W,
  };
  for (const [w, window] of tensors.windows.entries()) {
    const acts = tensors.acts[w]!;
    encodeWindow(rec, sae, x, acts, window);
    decodeWindow(rec, sae, acts, err, window, x);
  }
}

/** All gradients, and the features' partial sums; returns how many rows those take. */
function backward(
  rec: Recorder,
  tensors: TrainingTensors,
  B: number,
  lambda: number,
): number {
  const { W_enc, b_enc, W_dec, b_dec } = tensors.parameters;
  const [mean, l1] = [2 / B, lambda / B];
  const [x, err] = [tensors.x, tensors.err];
  columnSums.run(rec, { y: err, sums: b_dec.grad }, { scale: mean });
  let slot = 0;
  for (const [w, window] of tensors.windows.entries()) {
    const at = (tensor: Tensor): Tensor => windowOf(tensor, window);
    const size = window.end - window.start;
    const acts = tensors.acts[w]!;
    const dpre = windowOf(tensors.dpre, { start: 0, end: B * size })
      .reshape([B, size]);
    const [norms, l1_coef] = [at(tensors.norms), at(tensors.l1Coef)];
    const W = at(W_dec.W);
    rowNorms.run(rec, { W, norms });
    matmul(rec, {
      layout: "mk,nk",
      A: err,
      B: W,
      C: dpre,
      epilogue: {
        spec: ENCODE_BACKWARD,
        tensors: { acts, norms },
        values: { mean, l1 },
      },
    });
    saeFeatureSums.run(rec, {
      acts,
      dpre,
      norms,
      db_enc: at(b_enc.grad),
      l1_coef,
      tokens_since_fired: at(tensors.tokensSinceFired),
      partials: tensors.partials,
    }, { slot, l1 });
    matmul(rec, {
      layout: "km,kn",
      A: acts,
      B: err,
      C: at(W_dec.grad),
      epilogue: {
        spec: DECODE_BACKWARD,
        tensors: { l1_coef, W_dec: W },
        values: { mean },
      },
    });
    matmul(rec, { layout: "km,kn", A: dpre, B: x, C: at(W_enc.grad) });
    slot += featureParts(size);
  }
  return slot;
}

/** Partial sums of err² and of the gradients' squares, from row `slot` of the table on. */
function measureSquares(
  rec: Recorder,
  tensors: TrainingTensors,
  slot: number,
): void {
  const add = (tensor: Tensor, column: number): void => {
    for (const { tensor: part } of tensor.windows()) {
      const values = flat(part);
      const n_parts = squareParts(values.nRows);
      const options = { n_parts, slot, column };
      sumSquares.run(rec, { values, partials: tensors.partials }, options);
      slot += n_parts;
    }
  };
  add(tensors.err, ERROR);
  for (const name of PARAMETERS) add(tensors.parameters[name].grad, GRADIENT);
}

/** Adam on every parameter. */
function update(
  rec: Recorder,
  tensors: TrainingTensors,
  config: TrainerConfig,
  { step, lr }: StepValues & { step: number },
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
  for (const name of PARAMETERS) {
    const { grad, m, v, W } = tensors.parameters[name];
    for (const window of W.windows()) {
      const part = (tensor: Tensor): Tensor => flat(windowOf(tensor, window));
      adam.run(rec, {
        grad: part(grad),
        status: tensors.status,
        m: part(m),
        v: part(v),
        W: part(W),
      }, values);
    }
  }
}
