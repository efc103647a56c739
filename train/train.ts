/**
 * The training loop: batches in, an SAE folder out.
 * @module
 */
import type { SaeMetadata, SaeWeights, WriteFile } from "../core/sae_file.ts";
import { foldSae, saveSae } from "../core/sae_file.ts";
import type { Source } from "../core/source.ts";
import type { Gpu } from "../gpu/mod.ts";
import type { Batches } from "./batches.ts";
import { resumeFrom, writeCheckpoint } from "./checkpoint.ts";
import { initSae } from "./init.ts";
import type { StepMetrics } from "./metrics.ts";
import type { SaeRecipe } from "./recipe.ts";
import { scheduleAt } from "./schedule.ts";
import { SaeTrainer, type TrainerConfig } from "./trainer.ts";

/** The numbers of a step, with what its error is a share of. */
export interface TrainMetrics extends StepMetrics {
  /** mse as a share of the variance of the training data; 0 is perfect. */
  readonly fvu: number;
}

/** What a run tells while it goes. */
export interface TrainProgress {
  /** Numbers of the newest step that has arrived. */
  readonly metrics: TrainMetrics;
  /** Steps of the whole run. */
  readonly steps: number;
  /** Tokens a second since the run began or resumed. */
  readonly tokensPerSecond: number;
}

/** A run. */
export interface TrainOptions {
  /** The device to train on. */
  readonly gpu: Gpu;
  /** Fresh batches with the recipe's `batch` and `seed`. */
  readonly batches: Batches;
  /** The numbers of the run. */
  readonly recipe: SaeRecipe;
  /** What later stages must know of the SAE beside its recipe and scale. */
  readonly metadata:
    & Pick<SaeMetadata, "modelFingerprint" | "contextLength" | "text">
    & Required<Pick<SaeMetadata, "hookPoint" | "modelName">>;
  /** Writes a file of the run's folder, whole or not at all. */
  readonly write: WriteFile;
  /** The checkpoint to go on from. */
  readonly checkpoint?: Source;
  /** Steps between checkpoints; none but the one of a stopped run when absent. */
  readonly checkpointEvery?: number;
  /** Steps between metrics; 10 when absent. */
  readonly metricsEvery?: number;
  /** Called for each step with metrics, in order. A resumed run tells the steps after its checkpoint again. */
  readonly onProgress?: (progress: TrainProgress) => void;
  /** Stops the run after the current step, with a checkpoint. */
  readonly signal?: AbortSignal;
}

/** How a run ended. */
export interface TrainResult {
  /** Steps done. */
  readonly step: number;
  /** Whether all steps are done and the SAE is written; else a checkpoint is. */
  readonly isDone: boolean;
  /** Share of features that did not fire on the last `deadWindow` tokens of training. */
  readonly deadShare: number;
  /** Tokens after which a feature counts as dead: 10 million, or all of a shorter run. */
  readonly deadWindow: number;
}

/** Steps with metrics that may be under way before the loop waits. */
const METRICS_AHEAD = 2;
const DEAD_WINDOW = 10_000_000;

/** What a trainer needs of a recipe and its inputs. */
export function trainerConfig(
  recipe: SaeRecipe,
  inputs: { readonly d_model: number; readonly inputScale: number },
): TrainerConfig {
  const { d_sae, batch, clipNorm, betas, eps } = recipe;
  const { d_model, inputScale } = inputs;
  return { d_model, d_sae, batch, inputScale, clipNorm, betas, eps };
}

/**
 * Trains an SAE and writes it, folded, so that it takes and gives raw activations.
 * @throws {RangeError} If a step is not finite (names it), or the checkpoint is of another run.
 */
export async function trainSae(options: TrainOptions): Promise<TrainResult> {
  const { gpu, batches, recipe, write, signal } = options;
  const { d_model, statistics: { inputScale, mean } } = batches;
  const scaledMean = mean.map((value) => value * inputScale);
  using trainer = new SaeTrainer(
    gpu,
    trainerConfig(recipe, { d_model, inputScale }),
    initSae(scaledMean, recipe.d_sae, recipe.seed),
  );
  if (options.checkpoint) {
    await resumeFrom(options.checkpoint, trainer, batches, recipe);
  }
  const report = reporter(trainer, options);
  const { checkpointEvery = Infinity, metricsEvery = 10 } = options;
  while (trainer.steps < recipe.steps && !signal?.aborted) {
    const step = trainer.steps;
    const isLast = step + 1 === recipe.steps;
    const metrics = isLast || step % metricsEvery === 0;
    trainer.step(await batches.next(), scheduleAt(step, recipe), { metrics });
    if (metrics) {
      await trainer.settle(METRICS_AHEAD);
      report();
    }
    if (!isLast && trainer.steps % checkpointEvery === 0) {
      await trainer.settle();
      report();
      await writeCheckpoint(write, trainer, batches, recipe);
    }
  }
  await trainer.settle();
  report();
  const isDone = trainer.steps === recipe.steps;
  if (isDone) await save(trainer, inputScale, options);
  else await writeCheckpoint(write, trainer, batches, recipe);
  return { step: trainer.steps, isDone, ...await dead(trainer) };
}

/** Passes on metrics that have arrived. */
function reporter(trainer: SaeTrainer, options: TrainOptions): () => void {
  const started = performance.now();
  const firstStep = trainer.steps;
  const { steps, batch } = options.recipe;
  const { variance, inputScale } = options.batches.statistics;
  return () => {
    for (const metrics of trainer.takeMetrics()) {
      const seconds = (performance.now() - started) / 1000;
      const tokens = (metrics.step + 1 - firstStep) * batch;
      options.onProgress?.({
        metrics: {
          ...metrics,
          fvu: metrics.mse / (variance * inputScale ** 2),
        },
        steps,
        tokensPerSecond: tokens / seconds,
      });
    }
  };
}

async function save(
  trainer: SaeTrainer,
  inputScale: number,
  { recipe, metadata, write }: TrainOptions,
): Promise<void> {
  const { d_model, d_sae } = trainer.config;
  const weights: SaeWeights = { d_model, d_sae, ...await trainer.params() };
  foldSae(weights, inputScale);
  await saveSae(write, {
    weights,
    metadata: {
      ...metadata,
      architecture: "relu",
      inputScale,
      nTokensTrained: recipe.steps * recipe.batch,
      recipe: { ...recipe },
    },
  });
}

async function dead(
  trainer: SaeTrainer,
): Promise<{ deadShare: number; deadWindow: number }> {
  const { batch, d_sae } = trainer.config;
  // A run that stops before its first step has seen nothing that could kill.
  const deadWindow = Math.max(1, Math.min(DEAD_WINDOW, trainer.steps * batch));
  const waited = await trainer.tokensSinceFired();
  const nDead = waited.filter((tokens) => tokens >= deadWindow).length;
  return { deadShare: nDead / d_sae, deadWindow };
}
