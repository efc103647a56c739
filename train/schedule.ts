/**
 * How λ and the learning rate change over a run.
 * @module
 */

/** What the two schedules depend on. */
export interface ScheduleOptions {
  /** Steps of the whole run. */
  readonly steps: number;
  /** λ after the warm-up. */
  readonly lambda: number;
  /** Share of the steps over which λ rises linearly from 0. */
  readonly lambdaWarmup: number;
  /** Learning rate before the decay. */
  readonly lr: number;
  /** Share of the steps, the last ones, over which the learning rate falls linearly; it would be 0 one step after the end. */
  readonly lrDecay: number;
}

/** The values of one step. */
export interface StepValues {
  /** L1 coefficient. */
  readonly lambda: number;
  /** Learning rate. */
  readonly lr: number;
}

/** Steps in a share of a run, rounded up; what rounding of the product adds does not count. */
function stepsOf(share: number, steps: number): number {
  return Math.ceil(share * steps - 1e-9);
}

/** λ and learning rate of a step, counted from 0. Source: Anthropic, April 2024 update, "Training SAEs". */
export function scheduleAt(step: number, options: ScheduleOptions): StepValues {
  const { steps, lambda, lambdaWarmup, lr, lrDecay } = options;
  const warmup = stepsOf(lambdaWarmup, steps);
  const decay = stepsOf(lrDecay, steps);
  return {
    lambda: lambda * (step < warmup ? step / warmup : 1),
    lr: lr * (step > steps - decay ? (steps - step) / decay : 1),
  };
}
