/**
 * The training recipe as flags.
 * @module
 */
import type { ConfigOf, FlagTable } from "../core/flags.ts";
import { ARCHITECTURES, parseRecipe, type SaeRecipe } from "../train/recipe.ts";

const DEFAULTS = parseRecipe({}, "defaults");

/** One flag for each number of the recipe; limits that they share with it are in `parseRecipe`. */
export const RECIPE_FLAGS = {
  architecture: {
    default: DEFAULTS.architecture,
    choices: ARCHITECTURES,
    help: "function from pre-activations to activations",
  },
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
      "sparsity coefficient after the warm-up; relu: loss = mean_t Σ_j (x − x̂)² + λ · mean_t Σ_i acts_i·‖W_dec_i‖; jumprelu: … + λ · mean_t L0, with which 0.2 is usual",
  },
  lambda_warmup: {
    default: DEFAULTS.lambdaWarmup,
    min: 0,
    max: 1,
    help: "share of the steps over which λ rises from 0",
  },
  target_l0: {
    default: DEFAULTS.targetL0,
    min: 0,
    help: "L0 that λ is steered to after the warm-up; 0 leaves λ alone",
  },
  k: {
    default: DEFAULTS.k,
    integer: true,
    min: 1,
    help: "features per vector of topk; of batchtopk their mean over a batch",
  },
  bandwidth: {
    default: DEFAULTS.bandwidth,
    help: "width of the window in which a jumprelu threshold gets a gradient",
  },
  init_threshold: {
    default: DEFAULTS.initThreshold,
    help: "thresholds of jumprelu at the start",
  },
  aux_k: {
    default: DEFAULTS.auxK,
    integer: true,
    min: 0,
    help:
      "dead features per vector that AuxK trains on what is left of the error; 0 for none, d_model/2 is usual",
  },
  aux_coefficient: {
    default: DEFAULTS.auxCoefficient,
    min: 0,
    help: "weight of AuxK's loss",
  },
  dead_after: {
    default: DEFAULTS.deadAfter,
    integer: true,
    min: 1,
    unit: "tokens",
    help: "without firing, after which a feature counts as dead",
  },
  resample_every: {
    default: DEFAULTS.resampleEvery,
    integer: true,
    min: 0,
    unit: "steps",
    help: "between resamplings of dead features; 0 for none",
  },
  resample_until: {
    default: DEFAULTS.resampleUntil,
    min: 0,
    max: 1,
    help: "share of the steps after which none is resampled any more",
  },
  lr: { default: DEFAULTS.lr, help: "learning rate of Adam" },
  lr_warmup: {
    default: DEFAULTS.lrWarmup,
    min: 0,
    max: 1,
    help: "share of the steps over which lr rises from 0",
  },
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
    help: "that go through the SAE at once",
  },
  accumulate: {
    default: DEFAULTS.accumulate,
    integer: true,
    min: 1,
    unit: "batches",
    help: "whose gradients make one step",
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
  moments: {
    default: DEFAULTS.moments,
    choices: ["f32", "q8"],
    help: "how Adam's moments are kept: q8 takes a quarter of the memory",
  },
  init: {
    default: DEFAULTS.init,
    choices: ["mean", "median"],
    help: "what b_dec starts at: mean or geometric median of the inputs",
  },
  max_norm: {
    default: DEFAULTS.maxNorm,
    min: 0,
    help:
      "vectors of more than this many times the median norm are left out; 0 keeps all",
  },
  skip_tokens: {
    default: "",
    help: "ids of tokens whose vectors are left out, such as 0,1",
  },
  skip_bad_rows: {
    default: DEFAULTS.skipBadRows,
    help:
      "count and leave out vectors with NaN or infinity, which else end the run",
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
    architecture: flags.architecture,
    d_sae: flags.d_sae,
    lambda: flags.lambda,
    lambdaWarmup: flags.lambda_warmup,
    targetL0: flags.target_l0,
    k: flags.k,
    bandwidth: flags.bandwidth,
    initThreshold: flags.init_threshold,
    auxK: flags.aux_k,
    auxCoefficient: flags.aux_coefficient,
    deadAfter: flags.dead_after,
    resampleEvery: flags.resample_every,
    resampleUntil: flags.resample_until,
    lr: flags.lr,
    lrWarmup: flags.lr_warmup,
    lrDecay: flags.lr_decay,
    steps: flags.steps,
    batch: flags.batch,
    accumulate: flags.accumulate,
    clipNorm: flags.clip_norm,
    betas: [flags.beta1, flags.beta2],
    eps: flags.eps,
    moments: flags.moments,
    init: flags.init,
    maxNorm: flags.max_norm,
    skipTokens: tokenIds(flags.skip_tokens),
    skipBadRows: flags.skip_bad_rows,
    bufferRows: flags.buffer_rows,
    holdOut: flags.hold_out,
    seed: flags.seed,
  }, "flags of train");
}

/** `0,1` as numbers; what is none fails the recipe's check. */
function tokenIds(text: string): number[] {
  return text === "" ? [] : text.split(",").map((id) => Number(id || NaN));
}
