/**
 * The L1 recipe and its numbers.
 * @module
 */
import { z } from "zod";
import { checkJson } from "../core/check_json.ts";

/** Everything that, together with the data, decides the result of a training run. */
export interface SaeRecipe {
  /** Number of features. */
  readonly d_sae: number;
  /** L1 coefficient λ after the warm-up: loss = mean_t Σ_j (x − x̂)² + λ·mean_t Σ_i acts_i·‖W_dec_i‖, for inputs of mean norm √d_model. */
  readonly lambda: number;
  /** Share of the steps over which λ rises from 0. */
  readonly lambdaWarmup: number;
  /** Learning rate of Adam. */
  readonly lr: number;
  /** Share of the steps, the last ones, over which the learning rate falls to 0. */
  readonly lrDecay: number;
  /** Optimizer steps. */
  readonly steps: number;
  /** Vectors in a batch. */
  readonly batch: number;
  /** Gradients are scaled down to this global norm. */
  readonly clipNorm: number;
  /** Decay rates of Adam's moments. */
  readonly betas: readonly [number, number];
  /** Added to the root of Adam's second moment. */
  readonly eps: number;
  /** Vectors in memory that batches are drawn from. */
  readonly bufferRows: number;
  /** Vectors at the end of the data that training never sees. */
  readonly holdOut: number;
  /** Seed of the initialization and of the batches. */
  readonly seed: number;
}

const positive = z.number().positive().finite();
const share = z.number().min(0).max(1);

/** Form of a recipe file; what is absent takes the default. */
const Recipe: z.ZodType<SaeRecipe> = z.strictObject({
  d_sae: z.int().min(1).max(2 ** 24).default(1536),
  lambda: z.number().min(0).finite().default(1),
  lambdaWarmup: share.default(0.05),
  lr: positive.default(1e-3),
  lrDecay: share.default(0.2),
  steps: z.int().min(1).max(2 ** 31).default(2000),
  batch: z.int().min(1).max(2 ** 20).default(1024),
  clipNorm: positive.default(1),
  betas: z.tuple([z.number().min(0).lt(1), z.number().min(0).lt(1)])
    .default([0.9, 0.999]),
  eps: positive.default(1e-8),
  bufferRows: z.int().min(1).max(2 ** 31).default(2 ** 20),
  holdOut: z.int().min(0).default(8192),
  seed: z.int().min(0).default(0),
});

/**
 * A recipe from JSON, with defaults for what is absent.
 * Source of the form: Anthropic, April 2024 update, "Training SAEs".
 * @param file What errors call it.
 * @throws {SyntaxError} If a field is unknown or out of range: names it.
 */
export function parseRecipe(json: unknown, file: string): SaeRecipe {
  return checkJson(Recipe, json, file);
}
