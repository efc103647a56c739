/**
 * How λ and the learning rate change over a run.
 * @module
 */
import type { SaeRecipe } from "./recipe.ts";

/** What the two schedules depend on. */
export type ScheduleOptions =
  & Pick<SaeRecipe, "steps" | "lambda" | "lambdaWarmup" | "lr" | "lrDecay">
  & Partial<Pick<SaeRecipe, "lrWarmup">>;

/** The values of one step. */
export interface StepValues {
  /** Sparsity coefficient. */
  readonly lambda: number;
  /** Learning rate. */
  readonly lr: number;
}

/** Steps in a share of a run, rounded up; what rounding of the product adds does not count. */
export function stepsOf(share: number, steps: number): number {
  return Math.ceil(share * steps - 1e-9);
}

/**
 * λ and learning rate of a step, counted from 0. λ rises linearly from 0; the learning rate rises to its
 * value, which the last step of the warm-up has, and falls so that it would be 0 one step after the end.
 * Source: Anthropic, April 2024 update, "Training SAEs".
 */
export function scheduleAt(step: number, options: ScheduleOptions): StepValues {
  const { steps, lambda, lambdaWarmup, lr, lrWarmup = 0, lrDecay } = options;
  const warmup = stepsOf(lambdaWarmup, steps);
  const rise = stepsOf(lrWarmup, steps);
  const decay = stepsOf(lrDecay, steps);
  const falling = step > steps - decay ? (steps - step) / decay : 1;
  return {
    lambda: lambda * (step < warmup ? step / warmup : 1),
    lr: lr * Math.min(falling, step < rise ? (step + 1) / rise : 1),
  };
}
