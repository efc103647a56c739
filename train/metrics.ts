/**
 * What is measured in a training step.
 * @module
 */
import type { StepValues } from "./schedule.ts";

/** The numbers of one training step. */
export interface StepMetrics extends StepValues {
  /** Step, from 0. */
  readonly step: number;
  /** mse + λ·sparsity + AuxK's share. */
  readonly loss: number;
  /** Squared error summed over d_model, mean over the batch. */
  readonly mse: number;
  /** What λ multiplies: Σ_i acts_i·‖W_dec_i‖ of relu (and so told of topk too), L0 of jumprelu; mean over the batch. */
  readonly l1: number;
  /** Features with act > 0, mean over the batch. */
  readonly L0: number;
  /** Entries of the sparse path: the L0, and of jumprelu also features in the window of their threshold; mean over the batch. */
  readonly nEntries: number;
  /** Global norm of the gradient before clipping. */
  readonly gradNorm: number;
  /** AuxK's loss before its coefficient; 0 without it. */
  readonly auxLoss: number;
  /** Which way the last batch of the step took. */
  readonly path: "dense" | "sparse";
  /** Features that count as dead; undefined where they were not counted. */
  readonly nDead: number | undefined;
}

/** What a step's status belongs to. */
export interface StatusTag extends StepValues {
  /** Step, from 0. */
  readonly step: number;
  /** Whether dead features were counted. */
  readonly countsDead?: boolean;
  /** Whether λ multiplies the L0. */
  readonly isL0?: boolean;
}

/** What the bits of a status stand for. */
const WHAT = ["mse", "sparsity", "the gradient norm", "the loss"] as const;

/**
 * Metrics from the words that `sae_step_status` wrote.
 * @throws {RangeError} If they are of a step with a value that is not finite.
 */
export function readMetrics(tag: StatusTag, status: ArrayBuffer): StepMetrics {
  const floats = new Float32Array(status);
  const [loss, mse, l1, entries, gradNorm] = [...floats] as [
    number,
    number,
    number,
    number,
    number,
  ];
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
  const { step, lambda, lr, countsDead = false, isL0 = false } = tag;
  return {
    step,
    lambda,
    lr,
    loss,
    mse,
    l1,
    L0: isL0 ? l1 : entries,
    nEntries: entries,
    gradNorm,
    auxLoss: floats[8]!,
    path: words[9] === 1 ? "sparse" : "dense",
    nDead: countsDead ? words[10]! : undefined,
  };
}
