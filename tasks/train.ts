/**
 * Trains an SAE on collected residuals:
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
import { ResidualFolder } from "../core/residuals.ts";
import { Sae } from "../core/sae.ts";
import {
  SaeFile,
  saveFeatureMeasurements,
  type WriteFile,
} from "../core/sae_file.ts";
import type { Gpu } from "../gpu/mod.ts";
import { Batches, rowGroupsOf } from "../train/batches.ts";
import { CHECKPOINT_FILE } from "../train/checkpoint.ts";
import { evaluateResiduals, type SaeEvaluation } from "../train/evaluate.ts";
import type { SaeRecipe } from "../train/recipe.ts";
import { trainerConfig, trainSae } from "../train/train.ts";
import { trainingBytes } from "../train/trainer.ts";
import {
  GPU_FLAGS,
  type PlanRow,
  runTask,
  type TaskContext,
  type TaskSpec,
  userPath,
} from "./cli.ts";
import { formatCount, formatRate } from "./format.ts";
import type { Progress } from "./progress.ts";
import { MetricsLog } from "./metrics_log.ts";
import { RECIPE_FLAGS, recipeOf } from "./recipe_flags.ts";

const FLAGS = {
  residuals: {
    type: "string",
    required: true,
    help: "folder that collect wrote",
  },
  out: {
    type: "string",
    required: true,
    help: "folder to write; a run that was stopped there goes on",
  },
  ...RECIPE_FLAGS,
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
  ...GPU_FLAGS,
} as const satisfies FlagTable;

/** Trains what the flags say. */
export async function trainTask(
  flags: ConfigOf<typeof FLAGS>,
  context: TaskContext,
): Promise<void> {
  const recipe = recipeOf(flags);
  const folder = await ResidualFolder.open(
    directory(userPath(flags.residuals)),
  );
  const { manifest } = folder;
  if (!manifest.done) {
    context.note(
      `"${folder.name}" is not complete; training on the ${
        formatCount(manifest.n_tokens)
      } vectors that are there`,
    );
  }
  const gpu = await context.openGpu(flags.gpu);
  context.plan(memoryPlan(recipe, manifest.model.d_model, manifest.n_tokens));
  const batches = await Batches.open(await rowGroupsOf(folder), recipe);
  const out = userPath(flags.out);
  const id = await fingerprint({
    recipe,
    residuals: manifest.fingerprint,
    shards: manifest.shards.map(({ sha256 }) => sha256),
  });
  const before = await claimOutputFolder(out, "sae", id);
  if (before?.["done"] !== true) {
    await writeAtomic(
      join(out, "train.json"),
      JSON.stringify(flags, null, 2) + "\n",
    );
    const run = { out, flags, recipe, folder, gpu, batches, context };
    await train(run);
    const heldOut = await measure(run);
    await writeManifest(out, {
      kind: "sae",
      fingerprint: id,
      done: true,
      ...(heldOut && { heldOut }),
    });
    await removeIfThere(join(out, CHECKPOINT_FILE));
  } else {
    context.note("complete already");
  }
  console.log(`SAE with ${formatCount(recipe.d_sae)} features: ${out}`);
}

interface Run {
  readonly out: string;
  readonly flags: ConfigOf<typeof FLAGS>;
  readonly recipe: SaeRecipe;
  readonly folder: ResidualFolder;
  readonly gpu: Gpu;
  readonly batches: Batches;
  readonly context: TaskContext;
}

/** Trains, from the checkpoint if there is one, and writes the SAE. */
async function train(run: Run): Promise<void> {
  const { out, flags, recipe, folder, batches, context } = run;
  const { model, hookPoint, contextLength, text } = folder.manifest;
  using log = new MetricsLog(join(out, "metrics.jsonl"));
  using bars = new DisposableStack();
  let bar: Progress | undefined;
  const hasCheckpoint = existsSync(join(out, CHECKPOINT_FILE));
  const result = await trainSae({
    gpu: run.gpu,
    batches,
    recipe,
    metadata: {
      hookPoint,
      modelName: model.name,
      modelFingerprint: model.fingerprint,
      contextLength,
      text,
    },
    write: writerOf(out),
    ...(hasCheckpoint
      ? { checkpoint: await directory(out).open(CHECKPOINT_FILE) }
      : {}),
    checkpointEvery: flags.checkpoint_every,
    metricsEvery: flags.metrics_every,
    signal: context.signal,
    onProgress: ({ metrics, tokensPerSecond }): void => {
      log.add(metrics);
      const { step, loss, fvu, L0 } = metrics;
      // Where a resumed run begins shows in its first metrics.
      bar ??= bars.use(context.progress({
        label: "train",
        unit: "steps",
        total: recipe.steps,
        start: step,
      }));
      bar.update(
        step + 1,
        `loss ${loss.toFixed(2)}  FVU ${fvu.toFixed(3)}  L0 ${L0.toFixed(1)}  ${
          formatRate(tokensPerSecond)
        } tokens/s`,
      );
    },
  });
  if (!result.isDone) context.signal.throwIfAborted();
  bar?.end();
}

/** Measures what was trained: features on data, and the whole on what was held out, if anything was. */
async function measure(
  { out, flags, recipe, folder, gpu, batches, context }: Run,
): Promise<
  Pick<SaeEvaluation, "nTokens" | "fvu" | "L0" | "deadShare"> | undefined
> {
  using sae = await Sae.load(gpu, await SaeFile.open(directory(out)));
  const all = await evaluateResiduals(
    gpu,
    sae,
    firstRows(folder, flags.measure_rows, context.signal),
  );
  await saveFeatureMeasurements(writerOf(out), all);
  if (recipe.holdOut === 0) return undefined;
  const { nTokens, fvu, L0, deadShare } = await evaluateResiduals(
    gpu,
    sae,
    batches.heldOut(),
  );
  console.log(
    `FVU ${fvu.toFixed(4)}, L0 ${L0.toFixed(2)}, ${
      (100 * deadShare).toFixed(2)
    } % dead on ${formatCount(nTokens)} vectors that were held out`,
  );
  return { nTokens, fvu, L0, deadShare };
}

/** The first n vectors, or all: bits of bf16 `[n, d_model]`, a row group at a time. */
async function* firstRows(
  folder: ResidualFolder,
  n: number,
  signal: AbortSignal,
): AsyncGenerator<Uint16Array<ArrayBuffer>> {
  let left = n;
  for await (const { rows, n_rows, d_model } of folder.batches()) {
    signal.throwIfAborted();
    yield rows.subarray(0, Math.min(left, n_rows) * d_model);
    left -= n_rows;
    if (left <= 0) return;
  }
}

function writerOf(folder: string): WriteFile {
  return (file, content) => writeAtomic(join(folder, file), content);
}

async function removeIfThere(path: string): Promise<void> {
  if (existsSync(path)) await Deno.remove(path);
}

function memoryPlan(
  recipe: SaeRecipe,
  d_model: number,
  n_tokens: number,
): PlanRow[] {
  const config = trainerConfig(recipe, { d_model, inputScale: 1 });
  const nBuffered = Math.min(recipe.bufferRows, n_tokens);
  return [
    { what: "SAE, gradients and moments", bytes: trainingBytes(config) },
    {
      what: `${formatCount(nBuffered)} vectors on the host`,
      bytes: 2 * d_model * nBuffered,
    },
  ];
}

/** The task, for the command line and for tasks that have it as a stage. */
export const TRAIN: TaskSpec<typeof FLAGS> = {
  name: "train",
  description:
    "Trains a sparse autoencoder on collected residuals, by the L1 recipe.",
  afterInterrupt: "the same command goes on from the checkpoint",
  flags: FLAGS,
};

if (import.meta.main) await runTask(TRAIN, trainTask);
