/**
 * Trains an SAE on collected residuals, or straight from a model:
 * `./ocs train --residuals out/residuals --out out/sae`.
 * @module
 */
// deno-lint-ignore-file no-console
import { existsSync } from "node:fs";
import { join } from "node:path";
import {
  claimOutputFolder,
  directory,
  fingerprint,
  writeAtomic,
  writeManifest,
} from "../core/files.ts";
import type { ConfigOf, FlagTable } from "../core/flags.ts";
import { Sae } from "../core/sae.ts";
import {
  SaeFile,
  saveFeatureMeasurements,
  type WriteFile,
} from "../core/sae_file.ts";
import type { Gpu } from "../gpu/mod.ts";
import type { BatchSource } from "../train/batch_source.ts";
import { CHECKPOINT_FILE } from "../train/checkpoint.ts";
import { evaluateResiduals, type SaeEvaluation } from "../train/evaluate.ts";
import type { SaeRecipe } from "../train/recipe.ts";
import { trainerConfig, trainSae } from "../train/train.ts";
import { trainingMemory } from "../train/trainer.ts";
import {
  GPU_FLAGS,
  runTask,
  type TaskContext,
  type TaskSpec,
  userPath,
} from "./cli.ts";
import { formatCount } from "./format.ts";
import { localStore } from "./local_store.ts";
import { MEMORY_FLAG, memoryBudget } from "./memory_budget.ts";
import { checkPlan, describePlan, planTraining } from "./memory_plan.ts";
import { RECIPE_FLAGS, recipeOf } from "./recipe_flags.ts";
import { RunLoggers } from "./run_loggers.ts";
import { TrainView } from "./train_view.ts";
import { earlierText } from "./text_open.ts";
import {
  DATA_FLAGS,
  findTrainingData,
  type OpenTrainingData,
  type TrainingInput,
} from "./training_data.ts";
import { AUTOTUNE_FLAG, fileStore, tuningFile } from "./tuning_store.ts";
import { requireNet, wandbServer } from "./wandb.ts";
import type { WandbServer } from "./wandb_api.ts";

const FLAGS = {
  ...DATA_FLAGS,
  out: {
    type: "string",
    required: true,
    help: "folder to write; a run that was stopped there goes on",
  },
  ...RECIPE_FLAGS,
  path: {
    default: "auto",
    choices: ["auto", "dense", "sparse"],
    help:
      "how what follows encoding is computed: by products over all features, by lists of those that fire, or whichever is cheaper for a batch",
  },
  checkpoint_every: {
    default: 1000,
    integer: true,
    min: 1,
    unit: "steps",
    help: "between checkpoints",
  },
  metrics_every: {
    default: 10,
    integer: true,
    min: 1,
    unit: "steps",
    help: "between lines of metrics.jsonl",
  },
  measure_rows: {
    default: 2 ** 18,
    integer: true,
    min: 1,
    unit: "vectors",
    help: "on which each feature's maximum and density are measured at the end",
  },
  tensorboard: { type: "string", help: "folder for TensorBoard's event files" },
  wandb: { type: "string", help: "project at Weights & Biases to log to" },
  wandb_entity: { type: "string", help: "its user or team" },
  wandb_name: { type: "string", help: "name of the run there" },
  ...AUTOTUNE_FLAG,
  ...MEMORY_FLAG,
  ...GPU_FLAGS,
} as const satisfies FlagTable;

type Flags = ConfigOf<typeof FLAGS>;

/** Trains what the flags say. */
export async function trainTask(
  flags: Flags,
  context: TaskContext,
): Promise<void> {
  const recipe = recipeOf(flags);
  const server = flags.wandb === undefined
    ? undefined
    : wandbServer((name) => Deno.env.get(name));
  if (server) requireNet(server);
  const out = userPath(flags.out);
  const earlier = await earlierText(join(out, "train.json"));
  const input = await findTrainingData(flags, context, earlier);
  const gpu = await context.openGpu(flags.gpu);
  planMemory(gpu, recipe, flags, input, context);
  await gpu.tuning.attach(fileStore(tuningFile()), flags.autotune);
  using owned = new DisposableStack();
  const data = await input.open(gpu, recipe, owned);
  const id = await fingerprint({ recipe, ...input.id });
  await using _lock = await (await localStore(out)).lock("all");
  const before = await claimOutputFolder(out, "sae", id);
  const run = { out, flags, recipe, input, data, gpu, context };
  if (before?.["done"] !== true) {
    await writeAtomic(
      join(out, "train.json"),
      JSON.stringify({ ...flags, text: input.text }, null, 2) + "\n",
    );
    const heldOut = await trainAndMeasure(run, server);
    await writeManifest(out, {
      kind: "sae",
      fingerprint: id,
      done: true,
      ...(heldOut && { heldOut }),
    });
    await removeIfThere(join(out, CHECKPOINT_FILE));
  } else {
    // Lines that were logged without a network are sent now.
    if (server) await loggersOf(run, server).finish(0);
    context.note("complete already");
  }
  console.log(`SAE with ${formatCount(recipe.d_sae)} features: ${out}`);
}

interface Run {
  readonly out: string;
  readonly flags: Flags;
  readonly recipe: SaeRecipe;
  readonly input: TrainingInput;
  readonly data: OpenTrainingData;
  readonly gpu: Gpu;
  readonly context: TaskContext;
}

type HeldOut = Pick<SaeEvaluation, "nTokens" | "fvu" | "L0" | "deadShare">;

/** Trains, from the checkpoint if there is one, writes the SAE, and measures it. */
async function trainAndMeasure(
  run: Run,
  server: WandbServer | undefined,
): Promise<HeldOut | undefined> {
  const { out, flags, recipe, gpu, context } = run;
  const { batches } = run.data;
  let view: TrainView | undefined;
  using views = new DisposableStack();
  await using loggers = loggersOf(
    run,
    server,
    (text) => view ? view.note(text) : context.note(text),
  );
  const hasCheckpoint = existsSync(join(out, CHECKPOINT_FILE));
  const result = await trainSae({
    gpu,
    batches,
    recipe,
    metadata: run.input.metadata,
    write: writerOf(out),
    ...(hasCheckpoint && {
      checkpoint: await directory(out).open(CHECKPOINT_FILE),
    }),
    checkpointEvery: flags.checkpoint_every,
    metricsEvery: flags.metrics_every,
    path: flags.path,
    onPath(sparseEntries): void {
      const text = describePath(flags, sparseEntries / recipe.batch);
      if (text !== undefined) context.note(text);
    },
    signal: context.signal,
    onProgress: (line): void => {
      // Where a resumed run begins shows in its first metrics.
      view ??= views.use(
        new TrainView({
          steps: recipe.steps,
          start: line.step,
          quiet: context.quiet,
          signal: context.signal,
        }),
      );
      loggers.add(line);
      view.update(line);
    },
  });
  if (!result.isDone) {
    await loggers.finish(130);
    context.signal.throwIfAborted();
  }
  view?.end();
  noteDropped(batches, context.note);
  const { heldOut, density } = await measure(run);
  const logDensity = density.map((share) => Math.log10(share + 1e-10));
  loggers.addDensity(recipe.steps, logDensity);
  await loggers.finish(0);
  return heldOut;
}

function loggersOf(
  { out, flags, recipe, context }: Run,
  server: WandbServer | undefined,
  note: (text: string) => void = context.note,
): RunLoggers {
  return new RunLoggers({
    folder: out,
    config: { ...recipe },
    note,
    tensorboard: flags.tensorboard === undefined
      ? undefined
      : userPath(flags.tensorboard),
    wandb: server && {
      project: flags.wandb!,
      entity: flags.wandb_entity,
      name: flags.wandb_name,
      server,
    },
  });
}

/** Says up to which L0 the sparse path is taken, where that is decided by cost. */
function describePath({ path }: Flags, mostL0: number): string | undefined {
  if (path !== "auto") return undefined;
  return mostL0 === Infinity
    ? "sparse path: always taken"
    : `sparse path: taken up to an L0 of ${
      mostL0.toFixed(0)
    }; for batches with more, the dense one`;
}

/** Measures what was trained: features on data, and the whole on what was held out, if anything was. */
async function measure(
  { out, flags, recipe, data, gpu, context }: Run,
): Promise<{ heldOut: HeldOut | undefined; density: Float32Array }> {
  using sae = await Sae.load(gpu, await SaeFile.open(directory(out)));
  const all = await evaluateResiduals(
    gpu,
    sae,
    data.firstRows(flags.measure_rows, context.signal),
  );
  await saveFeatureMeasurements(writerOf(out), all);
  const { density } = all;
  if (recipe.holdOut === 0) return { heldOut: undefined, density };
  const { nTokens, fvu, L0, deadShare } = await evaluateResiduals(
    gpu,
    sae,
    data.batches.heldOut(),
  );
  console.log(
    `FVU ${fvu.toFixed(4)}, L0 ${L0.toFixed(2)}, ${
      (100 * deadShare).toFixed(2)
    } % dead on ${formatCount(nTokens)} vectors that were held out`,
  );
  return { heldOut: { nTokens, fvu, L0, deadShare }, density };
}

/** Says what of the data was left out, where anything was. */
function noteDropped(
  { dropped }: BatchSource,
  note: (text: string) => void,
): void {
  const { badRows, highNorm, skippedTokens } = dropped;
  const parts = [
    [badRows, "that were not finite"],
    [highNorm, "of a norm far above the median"],
    [skippedTokens, "of tokens to skip"],
  ] as const;
  const told = parts.filter(([n]) => n > 0)
    .map(([n, why]) => `${formatCount(n)} ${why}`);
  if (told.length > 0) note(`vectors left out: ${told.join(", ")}`);
}

function writerOf(folder: string): WriteFile {
  return (file, content) => writeAtomic(join(folder, file), content);
}

async function removeIfThere(path: string): Promise<void> {
  if (existsSync(path)) await Deno.remove(path);
}

/** Says what will be held where, and refuses what does not fit. */
function planMemory(
  gpu: Gpu,
  recipe: SaeRecipe,
  flags: Flags,
  input: TrainingInput,
  context: TaskContext,
): void {
  const { d_model } = input;
  const plan = planTraining(
    {
      recipe,
      d_model,
      nVectors: input.nOnHost,
      memoryOf: (recipe) => [
        ...trainingMemory(
          trainerConfig(recipe, { d_model, inputScale: 1 }),
          gpu.limits.maxStorageBufferBindingSize,
        ),
        ...input.memoryOf(recipe),
      ],
    },
    gpu.limits,
    memoryBudget(gpu, flags.memory),
  );
  context.note(describePlan(plan));
  checkPlan(plan);
}

/** The task, for the command line and for tasks that have it as a stage. */
export const TRAIN: TaskSpec<typeof FLAGS> = {
  name: "train",
  description:
    "Trains a sparse autoencoder on collected residuals, or straight from a model.",
  afterInterrupt: "the same command goes on from the checkpoint",
  flags: FLAGS,
};

if (import.meta.main) await runTask(TRAIN, trainTask);
