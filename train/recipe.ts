/**
 * The training recipe and its numbers.
 * @module
 */
import { z } from "zod";
import { checkJson } from "../core/check_json.ts";

/** Functions from pre-activations to activations that can be trained. */
export const ARCHITECTURES: readonly [
  "relu",
  "topk",
  "batchtopk",
  "jumprelu",
] = ["relu", "topk", "batchtopk", "jumprelu"];

/** One of {@link ARCHITECTURES}. */
export type TrainedArchitecture = typeof ARCHITECTURES[number];

/** Everything that, together with the data, decides the result of a training run. */
export interface SaeRecipe {
  /** Function from pre-activations to activations. */
  readonly architecture: TrainedArchitecture;
  /** Number of features. */
  readonly d_sae: number;
  /**
   * Sparsity coefficient λ after the warm-up, for inputs of mean norm √d_model. relu: loss = mean_t Σ_j (x − x̂)² +
   * λ·mean_t Σ_i acts_i·‖W_dec_i‖. jumprelu: λ·mean_t L0, where 0.2 does what 1 does for relu: a feature more is worth
   * its λ in squared error. topk and batchtopk have no such term.
   */
  readonly lambda: number;
  /** Share of the steps over which λ rises from 0. */
  readonly lambdaWarmup: number;
  /** L0 that λ is steered to after the warm-up; 0 leaves λ alone. */
  readonly targetL0: number;
  /** Features per vector of topk; of batchtopk their mean over a batch. */
  readonly k: number;
  /**
   * Width of the window around a jumprelu threshold in which it gets a gradient; what lies in it costs the sparse path as
   * much as what fires. From 0.3 to 2 times the deviation of pre-activations at the start it made no difference to L0 and FVU.
   */
  readonly bandwidth: number;
  /** Thresholds of jumprelu at the start; its encoder starts with rows that give pre-activations of a deviation of 1. */
  readonly initThreshold: number;
  /** Dead features per vector that AuxK trains on what is left of the error; 0 for none. */
  readonly auxK: number;
  /** Weight of AuxK's loss. */
  readonly auxCoefficient: number;
  /** Tokens without firing after which a feature counts as dead. */
  readonly deadAfter: number;
  /** Steps between resamplings of dead features; 0 for none. */
  readonly resampleEvery: number;
  /** Share of the steps after which none is resampled any more. */
  readonly resampleUntil: number;
  /** Learning rate of Adam. */
  readonly lr: number;
  /** Share of the steps over which the learning rate rises from 0. */
  readonly lrWarmup: number;
  /** Share of the steps, the last ones, over which the learning rate falls to 0. */
  readonly lrDecay: number;
  /** Optimizer steps. */
  readonly steps: number;
  /** Vectors that go through the SAE at once. */
  readonly batch: number;
  /** Batches whose gradients make one step. */
  readonly accumulate: number;
  /** Gradients are scaled down to this global norm. */
  readonly clipNorm: number;
  /** Decay rates of Adam's moments. */
  readonly betas: readonly [number, number];
  /** Added to the root of Adam's second moment. */
  readonly eps: number;
  /** How Adam's moments are kept: exactly, or as 8-bit blocks with a scale each. */
  readonly moments: "f32" | "q8";
  /** What b_dec starts at: mean or geometric median of the inputs. */
  readonly init: "mean" | "median";
  /** Vectors of more than this many times the median norm are left out; 0 keeps all. */
  readonly maxNorm: number;
  /** Ids of tokens whose vectors are left out. */
  readonly skipTokens: readonly number[];
  /** Whether vectors with NaN or infinity are counted and left out; else they end the run. */
  readonly skipBadRows: boolean;
  /** Vectors in memory that batches are drawn from. */
  readonly bufferRows: number;
  /** Vectors at the end of the data that training never sees. */
  readonly holdOut: number;
  /** Seed of the initialization and of the batches. */
  readonly seed: number;
}

const positive = z.number().positive().finite();
const share = z.number().min(0).max(1);
const decay = z.number().min(0).lt(1);

/** Form of a recipe; what is absent takes the default. */
const Recipe: z.ZodType<SaeRecipe> = z.strictObject({
  architecture: z.enum(ARCHITECTURES).default("relu"),
  d_sae: z.int().min(1).max(2 ** 24).default(1536),
  lambda: z.number().min(0).finite().default(1),
  lambdaWarmup: share.default(0.05),
  targetL0: z.number().min(0).finite().default(0),
  k: z.int().min(1).max(2 ** 24).default(32),
  bandwidth: positive.default(0.3),
  initThreshold: positive.default(1),
  auxK: z.int().min(0).max(2 ** 24).default(0),
  auxCoefficient: z.number().min(0).finite().default(1 / 32),
  deadAfter: z.int().min(1).max(2 ** 32 - 1).default(10_000_000),
  resampleEvery: z.int().min(0).default(0),
  resampleUntil: share.default(0.5),
  lr: positive.default(1e-3),
  lrWarmup: share.default(0),
  lrDecay: share.default(0.2),
  steps: z.int().min(1).max(2 ** 31).default(2000),
  batch: z.int().min(1).max(2 ** 20).default(1024),
  accumulate: z.int().min(1).max(2 ** 16).default(1),
  clipNorm: positive.default(1),
  betas: z.tuple([decay, decay]).default([0.9, 0.999]),
  eps: positive.default(1e-8),
  moments: z.enum(["f32", "q8"]).default("f32"),
  init: z.enum(["mean", "median"]).default("mean"),
  maxNorm: z.number().min(0).finite().default(10),
  skipTokens: z.array(z.int().min(0)).default([]),
  skipBadRows: z.boolean().default(false),
  bufferRows: z.int().min(1).max(2 ** 31).default(2 ** 20),
  holdOut: z.int().min(0).default(8192),
  seed: z.int().min(0).default(0),
}).superRefine(checkTogether);

/** What only several fields together can get wrong. */
function checkTogether(
  recipe: Pick<
    SaeRecipe,
    "architecture" | "k" | "d_sae" | "lambda" | "targetL0"
  >,
  context: z.RefinementCtx,
): void {
  const { architecture, k, d_sae, lambda, targetL0 } = recipe;
  const hasK = architecture === "topk" || architecture === "batchtopk";
  const refuse = (field: string, message: string): void =>
    context.addIssue({ code: "custom", path: [field], message });
  if (hasK && k > d_sae) {
    refuse("k", `expected at most d_sae ${d_sae}: got ${k}`);
  }
  if (hasK && targetL0 > 0) {
    refuse("targetL0", `expected 0: k decides the L0 of ${architecture}`);
  }
  if (targetL0 > 0 && lambda === 0) {
    refuse("lambda", "expected more than 0, which targetL0 multiplies: got 0");
  }
  if (targetL0 > d_sae) {
    refuse("targetL0", `expected at most d_sae ${d_sae}: got ${targetL0}`);
  }
}

/**
 * A recipe from JSON, with defaults for what is absent.
 * Source of the form: Anthropic, April 2024 update, "Training SAEs".
 * @param file What errors call it.
 * @throws {SyntaxError} If a field is unknown or out of range: names it.
 */
export function parseRecipe(json: unknown, file: string): SaeRecipe {
  return checkJson(Recipe, json, file);
}
