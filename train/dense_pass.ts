/**
 * The dense path of a training step, as GPU commands: matrix products over all
 * features, a window at a time. It is recorded gated; the GPU skips it where the sparse path is taken.
 * @module
 */
import { decodeWindow, windowOf } from "../core/sae.ts";
import type { Recorder, Tensor } from "../gpu/mod.ts";
import { matmul } from "../kernels/matmul.ts";
import {
  ADD_TOUCHED,
  DECODE_BACKWARD,
  DECODE_BACKWARD_ADD,
  ENCODE_BACKWARD,
  ENTRY_BACKWARD,
  SCALED,
} from "../kernels/sae_epilogues.ts";
import { saeFeatureSums } from "../kernels/sae_feature_sums.ts";
import { saeThresholdGradients } from "../kernels/sae_threshold_gradients.ts";
import { DENSE } from "./entry_lists.ts";
import type { EntryBackward } from "./sparse_pass.ts";
import type { TrainingTensors } from "./training_tensors.ts";

/** err = acts·W_dec + b_dec − x. */
export function decodeDense(rec: Recorder, tensors: TrainingTensors): void {
  const { parameters, acts, err, x, lists } = tensors;
  const sae = {
    W_enc: parameters.W_enc.W,
    b_enc: parameters.b_enc.W,
    W_dec: parameters.W_dec.W,
    b_dec: parameters.b_dec.W,
  };
  rec.gated(lists.gate, { branch: DENSE }, () => {
    for (const [w, window] of tensors.windows.entries()) {
      decodeWindow(rec, sae, acts[w]!, err, window, x);
    }
  });
}

/** Gradients of the weights, biases and thresholds of all features. */
export function denseBackward(
  rec: Recorder,
  tensors: TrainingTensors,
  backward: EntryBackward & { readonly adds: boolean },
): void {
  rec.gated(tensors.lists.gate, { branch: DENSE }, () => {
    for (const w of tensors.windows.keys()) {
      windowBackward(rec, tensors, backward, w);
    }
  });
}

function windowBackward(
  rec: Recorder,
  tensors: TrainingTensors,
  { err, mean, l1, threshold, adds, input }: EntryBackward & { adds: boolean },
  w: number,
): void {
  const { W_enc, b_enc, W_dec, log_threshold } = tensors.parameters;
  const window = tensors.windows[w]!;
  const at = (tensor: Tensor): Tensor => windowOf(tensor, window);
  const acts = tensors.acts[w]!;
  const [B, size] = acts.shape as [number, number];
  const dpre = windowOf(tensors.dpre, { start: 0, end: B * size })
    .reshape([B, size]);
  const [norms, l1_coef] = [at(tensors.norms), at(tensors.l1Coef)];
  const touched = at(tensors.touched);
  const W = at(W_dec.W);
  matmul(rec, {
    layout: "mk,nk",
    A: err,
    B: W,
    C: dpre,
    epilogue: threshold
      ? { spec: ENTRY_BACKWARD, tensors: { acts }, values: { mean } }
      : {
        spec: ENCODE_BACKWARD,
        tensors: { acts, norms },
        values: { mean, l1 },
      },
  });
  if (threshold) {
    saeThresholdGradients.run(rec, {
      acts,
      thresholds: at(tensors.thresholds!),
      touched,
      dact: dpre,
      dlog: at(log_threshold!.grad),
    }, threshold);
  }
  saeFeatureSums.run(rec, {
    acts,
    dpre,
    norms,
    db_enc: at(b_enc.grad),
    l1_coef,
    touched,
    tokens_since_fired: at(tensors.tokensSinceFired),
  }, { l1 });
  const operands = { l1_coef, W_dec: W };
  matmul(rec, {
    layout: "km,kn",
    A: acts,
    B: err,
    C: at(W_dec.grad),
    epilogue: adds
      ? {
        spec: DECODE_BACKWARD_ADD,
        tensors: { ...operands, touched },
        values: { mean },
      }
      : { spec: DECODE_BACKWARD, tensors: operands, values: { mean } },
  });
  const { x, scale } = input;
  // Packed columns are loaded 8 at a time.
  const isNarrow = x.dtype === "bf16" && x.shape[1]! % 8 !== 0;
  matmul(rec, {
    layout: "km,kn",
    A: dpre,
    B: isNarrow ? tensors.x : x,
    C: at(W_enc.grad),
    epilogue: {
      ...(adds
        ? { spec: ADD_TOUCHED, tensors: { touched } }
        : { spec: SCALED, tensors: {} }),
      values: { scale: isNarrow ? 1 : scale },
    },
  });
}
