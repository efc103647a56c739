/**
 * The training recipe as flags.
 * @module
 */
import type { ConfigOf, FlagTable } from "../core/flags.ts";
import { parseRecipe, type SaeRecipe } from "../train/recipe.ts";

const DEFAULTS = parseRecipe({}, "defaults");

/** One flag for each number of the recipe; limits that they share with it are in `parseRecipe`. */
export const RECIPE_FLAGS = {
  d_sae: {
    default: DEFAULTS.d_sae,
    integer: true,
    min: 1,
    help: "number of features",
  },
  lambda: {
    default: DEFAULTS.lambda,
    min: 0,
    help:
      "L1 coefficient after the warm-up; loss = mean_t Σ_j (x − x̂)² + λ · mean_t Σ_i acts_i·‖W_dec_i‖",
  },
  lambda_warmup: {
    default: DEFAULTS.lambdaWarmup,
    min: 0,
    max: 1,
    help: "share of the steps over which λ rises from 0",
  },
  lr: { default: DEFAULTS.lr, help: "learning rate of Adam" },
  lr_decay: {
    default: DEFAULTS.lrDecay,
    min: 0,
    max: 1,
    help: "share of the steps, the last ones, over which lr falls to 0",
  },
  steps: {
    default: DEFAULTS.steps,
    integer: true,
    min: 1,
    help: "optimizer steps",
  },
  batch: {
    default: DEFAULTS.batch,
    integer: true,
    min: 1,
    unit: "vectors",
    help: "drawn in a step",
  },
  clip_norm: {
    default: DEFAULTS.clipNorm,
    help: "gradients are scaled down to this global norm",
  },
  beta1: {
    default: DEFAULTS.betas[0],
    min: 0,
    help: "decay rate of Adam's first moment",
  },
  beta2: {
    default: DEFAULTS.betas[1],
    min: 0,
    help: "decay rate of Adam's second moment",
  },
  eps: {
    default: DEFAULTS.eps,
    help: "added to the root of Adam's second moment",
  },
  buffer_rows: {
    default: DEFAULTS.bufferRows,
    integer: true,
    min: 1,
    unit: "vectors",
    help: "in memory, to draw batches from",
  },
  hold_out: {
    default: DEFAULTS.holdOut,
    integer: true,
    min: 0,
    unit: "vectors",
    help: "at the end of the data that training never sees",
  },
  seed: {
    default: DEFAULTS.seed,
    integer: true,
    min: 0,
    help: "seed of the initialization and of the batches",
  },
} as const satisfies FlagTable;

/**
 * The recipe that the flags tell.
 * @throws {SyntaxError} If a value is out of range: names the field.
 */
export function recipeOf(flags: ConfigOf<typeof RECIPE_FLAGS>): SaeRecipe {
  return parseRecipe({
    d_sae: flags.d_sae,
    lambda: flags.lambda,
    lambdaWarmup: flags.lambda_warmup,
    lr: flags.lr,
    lrDecay: flags.lr_decay,
    steps: flags.steps,
    batch: flags.batch,
    clipNorm: flags.clip_norm,
    betas: [flags.beta1, flags.beta2],
    eps: flags.eps,
    bufferRows: flags.buffer_rows,
    holdOut: flags.hold_out,
    seed: flags.seed,
  }, "flags of train");
}
