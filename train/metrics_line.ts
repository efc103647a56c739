/**
 * The line that is logged for a measured step: what `metrics.jsonl` holds, and
 * what TensorBoard, Weights & Biases and the terminal show of it.
 * @module
 */

/** Mean milliseconds a step since the line before. */
export interface StepMs {
  /** The whole step. */
  readonly step: number;
  /** Waiting for data. */
  readonly load: number;
  /** Recording and submitting. */
  readonly host: number;
  /** Waiting for the GPU. */
  readonly wait: number;
}

/** The numbers of a measured step. */
export interface MetricsLine {
  /** Step, from 0. */
  readonly step: number;
  /** Vectors trained on, this step included. */
  readonly tokens: number;
  /** What is minimized. */
  readonly loss: number;
  /** Squared error summed over d_model, mean over the batch. */
  readonly mseSumPerToken: number;
  /** Σ_i acts_i·‖W_dec_i‖, mean over the batch, before λ. */
  readonly l1: number;
  /** Features with act > 0, mean over the batch. */
  readonly L0: number;
  /** Squared error as a share of the variance of the training data; 0 is perfect. */
  readonly fvu: number;
  /** Share of features that have not fired for the recipe's `deadAfter` tokens, 0 to 1. */
  readonly deadShare: number;
  /** Global norm of the gradient before clipping. */
  readonly gradNorm: number;
  /** Sparsity coefficient. */
  readonly lambda: number;
  /** Learning rate. */
  readonly lr: number;
  /** Vectors a second since the line before. */
  readonly tokensPerSecond: number;
  /** How the step was computed. */
  readonly path: "dense" | "sparse";
  /** Loss of AuxK, where there is one. */
  readonly auxLoss?: number;
  /** Features resampled since the line before, where any were. */
  readonly resampled?: number;
  /** Where the time went. */
  readonly ms: StepMs;
}

/**
 * The numbers of a line under the names that trackers show, grouped by what
 * stands before the slash; those that are not finite are left out.
 */
export function scalarsOf(line: MetricsLine): Record<string, number> {
  const { step: _step, tokensPerSecond, path, ms, ...train } = line;
  const named: [string, number][] = [
    ...Object.entries(train).map(([name, value]): [string, number] => [
      `train/${name}`,
      value,
    ]),
    ["speed/tokensPerSecond", tokensPerSecond],
    ["speed/sparsePath", path === "sparse" ? 1 : 0],
    ...Object.entries(ms).map(([name, value]): [string, number] => [
      `speed/ms_${name}`,
      value,
    ]),
  ];
  return Object.fromEntries(named.filter(([, value]) => isFinite(value)));
}
