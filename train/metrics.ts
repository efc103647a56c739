/**
 * What is measured in a training step.
 * @module
 */
import type { StepValues } from "./schedule.ts";

/** The numbers of one training step. */
export interface StepMetrics extends StepValues {
  /** Step, from 0. */
  readonly step: number;
  /** mse + λ·l1. */
  readonly loss: number;
  /** Squared error summed over d_model, mean over the batch. */
  readonly mse: number;
  /** Σ_i acts_i·‖W_dec_i‖, mean over the batch, before λ. */
  readonly l1: number;
  /** Features with act > 0, mean over the batch. */
  readonly L0: number;
  /** Global norm of the gradient before clipping. */
  readonly gradNorm: number;
}

/** What the bits of a status stand for. */
const WHAT = ["mse", "l1", "the gradient norm", "the loss"] as const;

/**
 * Metrics from the words that `sae_step_status` wrote.
 * @throws {RangeError} If they are of a step with a value that is not finite.
 */
export function readMetrics(
  tag: StepValues & { readonly step: number },
  status: ArrayBuffer,
): StepMetrics {
  const [loss, mse, l1, L0, gradNorm] = new Float32Array(status);
  const words = new Uint32Array(status);
  const [badStep, what] = [words[6]!, words[7]!];
  if (badStep > 0) {
    const names = WHAT.filter((_, bit) => what >> bit & 1).join(", ");
    throw new RangeError(
      `Cannot go on training: expected finite numbers: got ${loss} for the loss of step ${
        badStep - 1
      } (not finite: ${names}): the parameters are those before that step: check the data, or lower lr`,
    );
  }
  return {
    ...tag,
    loss: loss!,
    mse: mse!,
    l1: l1!,
    L0: L0!,
    gradNorm: gradNorm!,
  };
}
