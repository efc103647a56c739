/**
 * The training loop: batches in, an SAE folder out.
 * @module
 */
import type { SaeMetadata, WriteFile } from "../core/sae_file.ts";
import { Rng } from "../core/rng.ts";
import type { Source } from "../core/source.ts";
import type { Gpu } from "../gpu/mod.ts";
import type { BatchPosition, RowStatistics } from "./batches.ts";
import {
  checkSameRun,
  openCheckpoint,
  type PathChoice,
  resumeFrom,
  type RunState,
  writeCheckpoint,
} from "./checkpoint.ts";
import { initSae, type SaeParams } from "./init.ts";
import type { MetricsLine } from "./metrics_line.ts";
import type { SaeRecipe } from "./recipe.ts";
import { resampleDead } from "./resample.ts";
import { saveTrained } from "./save_trained.ts";
import { scheduleAt, stepsOf, type StepValues } from "./schedule.ts";
import { CONTROL_EVERY, SparsityController } from "./sparsity_controller.ts";
import { StepClock } from "./step_clock.ts";
import { tunePath, tuneProducts } from "./tune.ts";
import {
  SaeTrainer,
  type TrainerBatch,
  type TrainerConfig,
} from "./trainer.ts";

/** Where batches come from. */
export interface TrainingData {
  /** Size of a vector. */
  readonly d_model: number;
  /** Of the vectors that are drawn from. */
  readonly statistics: RowStatistics;
  /** Where the next batch starts. */
  readonly position: BatchPosition;
  /** Draws the next batch. */
  next(): Promise<TrainerBatch>;
  /** Goes to a position; the next batch is the one that followed there. */
  restore(position: BatchPosition): Promise<void> | void;
}

/** A run. */
export interface TrainOptions {
  /** The device to train on. */
  readonly gpu: Gpu;
  /** Fresh batches with the recipe's `batch` and `seed`. */
  readonly batches: TrainingData;
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
  /**
   * Which way steps go after encoding; "auto", whichever is cheaper for a batch, when absent: by what `gpu.tuning`
   * remembers or measures, else by a guess. A resumed run keeps what its checkpoint tells.
   */
  readonly path?: PathChoice;
  /** Called once it is known with up to how many activations of a batch the sparse path is taken. */
  readonly onPath?: (sparseEntries: number) => void;
  /** Called for each step with metrics, in order. A resumed run tells the steps after its checkpoint again. */
  readonly onProgress?: (line: MetricsLine) => void;
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
  /** Tokens after which a feature counts as dead: the recipe's, or all of a shorter run. */
  readonly deadWindow: number;
}

/** Steps with metrics that may be under way before the loop waits. */
const METRICS_AHEAD = 2;

/** What a trainer needs of a recipe and its inputs. */
export function trainerConfig(
  recipe: SaeRecipe,
  inputs: { readonly d_model: number; readonly inputScale: number },
): TrainerConfig {
  const { architecture, d_sae, k, bandwidth, auxK, auxCoefficient } = recipe;
  const { deadAfter, batch, accumulate, clipNorm, betas, eps } = recipe;
  const { moments } = recipe;
  const { d_model, inputScale } = inputs;
  return {
    d_model,
    inputScale,
    architecture,
    d_sae,
    k,
    bandwidth,
    auxK,
    auxCoefficient,
    deadAfter,
    batch,
    accumulate,
    clipNorm,
    betas,
    eps,
    moments,
  };
}

/**
 * Trains an SAE and writes it, folded, so that it takes and gives raw activations.
 * @throws {RangeError} If a step is not finite (names it), or the checkpoint is of another run.
 */
export async function trainSae(options: TrainOptions): Promise<TrainResult> {
  using run = await Run.start(options);
  const { recipe, signal } = options;
  while (run.trainer.steps < recipe.steps && !signal?.aborted) {
    await run.step();
  }
  await run.settle();
  const isDone = run.trainer.steps === recipe.steps;
  if (isDone) await saveTrained(run.trainer, options);
  else await run.checkpoint();
  return { step: run.trainer.steps, isDone, ...await run.dead() };
}

/** Where the parameters start. */
function startOf(
  { init, d_sae, seed, architecture, initThreshold }: SaeRecipe,
  { mean, median, inputScale }: RowStatistics,
): SaeParams {
  const start = init === "median" ? median ?? mean : mean;
  const scaled = start.map((value) => value * inputScale);
  return initSae(scaled, d_sae, seed, architecture, initThreshold);
}

/** A run under way. */
class Run implements Disposable {
  readonly trainer: SaeTrainer;
  readonly #options: TrainOptions;
  readonly #path: PathChoice;
  readonly #controller: SparsityController | undefined;
  readonly #clock = new StepClock();
  /** Steps whose metrics were asked for and have not been taken, oldest first. */
  #asked: number[] = [];
  /** Features resampled since the last line of metrics. */
  #nResampled = 0;

  private constructor(
    options: TrainOptions,
    trainer: SaeTrainer,
    path: PathChoice,
  ) {
    this.#options = options;
    this.trainer = trainer;
    this.#path = path;
    const { targetL0, steps } = options.recipe;
    if (targetL0 > 0) {
      this.#controller = new SparsityController(targetL0, steps);
    }
  }

  static async start(options: TrainOptions): Promise<Run> {
    const { gpu, batches, recipe, checkpoint } = options;
    const { d_model, statistics } = batches;
    const { inputScale } = statistics;
    const opened = checkpoint && await openCheckpoint(checkpoint);
    if (opened) checkSameRun(opened, recipe, statistics);
    const path = opened?.info.path ?? options.path ?? "auto";
    const config: TrainerConfig = {
      ...trainerConfig(recipe, { d_model, inputScale }),
      ...(path !== "auto" &&
        { sparseEntries: path === "dense" ? 0 : Infinity }),
    };
    // The trainer settles on variants of kernels when it is made.
    if (opened) gpu.tuning.use(opened.info.kernels);
    else await tuneProducts(gpu, config);
    using owned = new DisposableStack();
    const init = startOf(recipe, statistics);
    const trainer = owned.use(new SaeTrainer(gpu, config, init));
    const run = new Run(options, trainer, path);
    if (opened) {
      run.#state = await resumeFrom(opened, trainer, batches);
    } else if (path === "auto" && gpu.tuning.mode !== "off") {
      trainer.sparseEntries = await tunePath(gpu, trainer);
      trainer.reset();
      trainer.writeParams(init);
    }
    await gpu.tuning.save();
    owned.move();
    options.onPath?.(trainer.config.sparseEntries);
    run.#clock.start(trainer.steps);
    return run;
  }

  /** What of the run is not in the trainer's tensors. */
  get #state(): RunState {
    return {
      controller: this.#controller?.state,
      nResampled: this.#nResampled,
      path: this.#path,
      sparseEntries: this.trainer.config.sparseEntries,
      kernels: this.#options.gpu.tuning.decisions(),
    };
  }

  set #state({ controller, nResampled, sparseEntries }: RunState) {
    if (this.#controller && controller) this.#controller.state = controller;
    this.#nResampled = nResampled;
    this.trainer.sparseEntries = sparseEntries;
  }

  /** Trains a step, and does what is due before and after it. */
  async step(): Promise<void> {
    const { recipe, batches, metricsEvery = 10, checkpointEvery } =
      this.#options;
    const { trainer } = this;
    const step = trainer.steps;
    await this.#resample(step);
    const controls = this.#controls(step);
    if (controls) await this.#control(step);
    const isLast = step + 1 === recipe.steps;
    const metrics = isLast || controls || step % metricsEvery === 0;
    const rows = await this.#clock.time("load", async () => {
      const list: TrainerBatch[] = [];
      while (list.length < recipe.accumulate) list.push(await batches.next());
      return list;
    });
    this.#clock.timeNow("host", () => {
      trainer.step(rows, this.#values(step), {
        metrics,
        ...(metrics && { deadWindow: this.#deadWindow(step + 1) }),
      });
    });
    if (metrics) {
      this.#asked.push(step);
      await this.#wait(METRICS_AHEAD);
    }
    if (!isLast && trainer.steps % (checkpointEvery ?? Infinity) === 0) {
      await this.settle();
      await this.checkpoint();
    }
  }

  /** Waits for all steps, and tells their metrics. */
  async settle(): Promise<void> {
    await this.#wait(0);
  }

  /** Writes a checkpoint; after {@link settle}. */
  async checkpoint(): Promise<void> {
    const { write, batches, recipe } = this.#options;
    await writeCheckpoint(write, this.trainer, batches, recipe, this.#state);
  }

  async dead(): Promise<Pick<TrainResult, "deadShare" | "deadWindow">> {
    const { trainer } = this;
    // A run that stops before its first step has seen nothing that could kill.
    const deadWindow = this.#deadWindow(Math.max(1, trainer.steps));
    const waited = await trainer.tokensSinceFired();
    const nDead = waited.filter((tokens) => tokens >= deadWindow).length;
    return { deadShare: nDead / trainer.config.d_sae, deadWindow };
  }

  /** Tokens after which a feature is dead, once `steps` are done. */
  #deadWindow(steps: number): number {
    const { deadAfter, batch, accumulate } = this.#options.recipe;
    return Math.min(deadAfter, steps * batch * accumulate);
  }

  #values(step: number): StepValues {
    const { lambda, lr } = scheduleAt(step, this.#options.recipe);
    return { lambda: lambda * (this.#controller?.factor ?? 1), lr };
  }

  /** Whether λ is updated before this step: at fixed steps, so that a run repeats to the bit. */
  #controls(step: number): boolean {
    const { lambdaWarmup, steps } = this.#options.recipe;
    return this.#controller !== undefined && step % CONTROL_EVERY === 0 &&
      step >= stepsOf(lambdaWarmup, steps);
  }

  /** Updates λ by the L0 of the step of the update before, which has arrived by now or is waited for. */
  async #control(step: number): Promise<void> {
    const from = step - CONTROL_EVERY;
    const later = this.#asked.filter((asked) => asked > from).length;
    if (this.#asked.includes(from)) await this.#wait(later);
    this.#controller!.update();
  }

  async #resample(step: number): Promise<void> {
    const { recipe, batches } = this.#options;
    const { resampleEvery, resampleUntil, steps, deadAfter } = recipe;
    const isDue = resampleEvery > 0 && step > 0 &&
      step % resampleEvery === 0 && step <= resampleUntil * steps;
    if (!isDue) return;
    await this.settle();
    const interval = resampleEvery * recipe.batch * recipe.accumulate;
    this.#nResampled += await resampleDead({
      trainer: this.trainer,
      next: () => batches.next(),
      deadAfter: Math.min(deadAfter, interval),
      initThreshold: recipe.initThreshold,
      rng: new Rng(recipe.seed).fork(`resample ${step}`),
    });
  }

  /** Waits until no more than `most` metrics are under way, and tells those that have arrived. */
  async #wait(most: number): Promise<void> {
    await this.#clock.time("wait", () => this.trainer.settle(most));
    const { onProgress, recipe, batches, metricsEvery = 10 } = this.#options;
    const { variance, inputScale } = batches.statistics;
    const rowsPerStep = recipe.batch * recipe.accumulate;
    const arrived = this.trainer.takeMetrics();
    if (arrived.length === 0) return;
    // Metrics that arrive together share the time since those before them.
    const ms = this.#clock.since(arrived.at(-1)!.step);
    for (const metrics of arrived) {
      const { step, loss, mse, l1, L0, gradNorm, lambda, lr, path } = metrics;
      this.#asked = this.#asked.filter((asked) => asked > step);
      if (this.#controls(step)) this.#controller!.measure(L0);
      const isLast = step + 1 === recipe.steps;
      if (!isLast && step % metricsEvery !== 0) continue;
      onProgress?.({
        step,
        tokens: (step + 1) * rowsPerStep,
        loss,
        mseSumPerToken: mse,
        l1,
        L0,
        fvu: mse / (variance * inputScale ** 2),
        deadShare: (metrics.nDead ?? 0) / recipe.d_sae,
        gradNorm,
        lambda,
        lr,
        tokensPerSecond: 1000 * rowsPerStep / ms.step,
        path,
        ...(recipe.auxK > 0 && { auxLoss: metrics.auxLoss }),
        ...(this.#nResampled > 0 && { resampled: this.#nResampled }),
        ms,
      });
      this.#nResampled = 0;
    }
  }

  /** Frees the trainer. */
  [Symbol.dispose](): void {
    this.trainer[Symbol.dispose]();
  }
}
