/**
 * Trains a grid of SAEs and compares them:
 * `./ocs sweep --config base.json --grid lambda=0.5,1,2 --grid seed=0,1 --residuals DIR --out out/sweep`.
 * @module
 */
// deno-lint-ignore-file no-console
import { join } from "node:path";
import { writeAtomic } from "../core/files.ts";
import type { ConfigOf, FlagTable } from "../core/flags.ts";
import { runTask, type TaskContext, type TaskSpec, userPath } from "./cli.ts";
import { checkEngine, ENGINE_FLAGS } from "./engine_flags.ts";
import { formatDuration } from "./format.ts";
import { type GpuPlace, gpuPlace, gpuPlaces } from "./gpu_places.ts";
import { localStore } from "./local_store.ts";
import { submitToSlurm } from "./slurm.ts";
import {
  createSweep,
  isComplete,
  openSweep,
  type Sweep,
  type SweepSettings,
} from "./sweep_folder.ts";
import { type GridPoint, gridPoints, parseGrid } from "./sweep_grid.ts";
import { sweepReport } from "./sweep_report.ts";
import {
  describeResults,
  readResults,
  resultsCsv,
  type SweepResult,
} from "./sweep_results.ts";
import { runPoint } from "./sweep_run.ts";
import { TRAIN } from "./train.ts";

const SWEEP_FLAGS = {
  out: {
    type: "string",
    help: "folder to write; a sweep that was stopped there goes on",
  },
  grid: {
    type: "strings",
    help: "flag of train and its values, such as lambda=0.5,1,2",
  },
  eval_text: {
    type: "string",
    help:
      "measure the cross-entropy recovered of every SAE on this text, as eval does: storybook:SEED:N, a file or a folder",
  },
  eval_documents: {
    default: 200,
    integer: true,
    min: 1,
    help: "most documents of that text",
  },
  eval_model: {
    type: "string",
    help:
      "folder of the model that reads it; models/tiny-olmo2 of this repo without it",
  },
  engine: {
    default: "local",
    choices: ["local", "slurm"],
    help: "slurm submits the same grid as an array of jobs",
  },
  ...ENGINE_FLAGS,
  task: {
    type: "number",
    integer: true,
    min: 0,
    help: "do this run of the sweep in --out only, as a job of the array does",
  },
  merge: {
    type: "string",
    help: "folder of a sweep whose tables are made again; nothing is trained",
  },
} as const satisfies FlagTable;

type Flags = ConfigOf<typeof SWEEP_FLAGS>;

/** Flags of `train` that belong to one run. */
const RUN_FLAGS: ReadonlySet<string> = new Set(["out", "gpu"]);

/** The flags of `train`, none of them required: `train` itself says what is missing. */
function trainFlags(): FlagTable {
  return Object.fromEntries(
    Object.entries(TRAIN.flags as FlagTable).map(([key, flag]) => {
      if (!("required" in flag)) return [key, flag];
      const { required: _, ...rest } = flag;
      return [key, rest];
    }),
  );
}

/** Does what the flags say. @returns The exit code. */
export async function sweepTask(
  flags: Flags,
  context: TaskContext,
): Promise<number> {
  if (flags.merge !== undefined) {
    return await report(await openSweep(userPath(flags.merge)));
  }
  if (flags.out === undefined) {
    throw new TypeError(
      "Cannot run sweep: expected --out STRING: got nothing: folder to write",
    );
  }
  const folder = userPath(flags.out);
  if (flags.task !== undefined) {
    return await runTaskOf(await openSweep(folder), flags.task, flags, context);
  }
  checkEngine(flags);
  const gpus = await gpusOf(flags); // before anything is written
  const [settings, points] = planOf(flags);
  await using _lock = await (await localStore(folder)).lock("all");
  const sweep = await createSweep(folder, settings, points);
  if (flags.engine === "slurm") return await submit(sweep, flags);
  const places = gpus.flatMap((gpu) =>
    Array<GpuPlace>(flags.jobs ?? 1).fill(gpu)
  );
  await runAll(sweep, places, context);
  return await report(sweep);
}

function planOf(flags: Flags): [SweepSettings, GridPoint[]] {
  if (flags.grid.length === 0) {
    throw new TypeError(
      "Cannot run sweep: expected --grid FLAG=VALUES at least once: got none: such as --grid lambda=0.5,1,2",
    );
  }
  // Values of train's flags stand among the sweep's own, as one table read them.
  const values = flags as Readonly<Record<string, unknown>>;
  const table = Object.entries(trainFlags())
    .filter(([key]) => !RUN_FLAGS.has(key) && !(key in SWEEP_FLAGS));
  const base = Object.fromEntries(
    table.map(([key]) => [key, values[key]])
      .filter(([, value]) => value !== undefined),
  );
  const { eval_text, eval_documents, eval_model } = flags;
  const evaluation = eval_text === undefined ? null : {
    text: eval_text,
    documents: eval_documents,
    model: eval_model ?? null,
  };
  const points = gridPoints(parseGrid(flags.grid, Object.fromEntries(table)));
  const cwd = Deno.env.get("INIT_CWD") ?? Deno.cwd();
  return [{ cwd, base, evaluation }, points];
}

/**
 * Runs what is left; failures are told and do not stop the rest.
 * @param places As many as runs at once.
 */
async function runAll(
  sweep: Sweep,
  places: readonly GpuPlace[],
  { signal, note }: TaskContext,
): Promise<void> {
  const { runs, folder } = sweep;
  note(`${runs.length} runs in ${folder}; each writes NAME.log there`);
  const waiting = runs.values();
  let nEnded = 0;
  const work = async (gpu: GpuPlace): Promise<void> => {
    for (const { name } of waiting) {
      if (signal.aborted) return;
      const line = await runAndDescribe(sweep, name, gpu, signal);
      console.log(`[${++nEnded}/${runs.length}] ${line}`);
    }
  };
  await Promise.all(places.map(work));
  signal.throwIfAborted();
}

/** `--gpus`, or `--gpu` of train, or the one that train takes by itself. */
async function gpusOf(flags: Flags): Promise<GpuPlace[]> {
  if (flags.gpus !== undefined) return await gpuPlaces(flags.gpus);
  const { gpu } = flags as { readonly gpu?: unknown };
  return [gpuPlace(typeof gpu === "string" ? gpu : undefined)];
}

/** Does a run; returns its line. */
async function runAndDescribe(
  sweep: Sweep,
  name: string,
  gpu: GpuPlace,
  signal: AbortSignal,
): Promise<string> {
  const outcome = await runPoint(sweep, name, { gpu, signal });
  if (outcome.kind === "failed") return `${name}: failed: ${outcome.error}`;
  if (outcome.kind === "stopped") return `${name}: stopped`;
  const results = await readResults({
    ...sweep,
    runs: sweep.runs.filter((run) => run.name === name),
  });
  return `${name}: ${results.map(describeResult).join("")}${
    outcome.kind === "complete" ? "" : ", complete already"
  }`;
}

function describeResult(
  { fvu, L0, deadShare, loss, seconds }: SweepResult,
): string {
  const parts = [
    fvu !== null && `FVU ${fvu.toFixed(4)}`,
    L0 !== null && `L0 ${L0.toFixed(2)}`,
    deadShare !== null && `${(100 * deadShare).toFixed(2)} % dead`,
    loss !== null && `CE recovered ${loss.recoveredFromZero.toFixed(4)}`,
    formatDuration(1000 * seconds),
  ];
  return parts.filter(Boolean).join(", ");
}

/** One run, for a job of an array. */
async function runTaskOf(
  sweep: Sweep,
  task: number,
  flags: Flags,
  { signal }: TaskContext,
): Promise<number> {
  const run = sweep.runs[task];
  if (!run) {
    throw new RangeError(
      `Cannot run task ${task} of "${sweep.folder}": expected 0 to ${
        sweep.runs.length - 1
      }`,
    );
  }
  const [gpu = gpuPlace(undefined)] = await gpusOf(flags);
  const line = await runAndDescribe(sweep, run.name, gpu, signal);
  console.log(line);
  signal.throwIfAborted();
  return await isComplete(sweep, run.name) ? 0 : 1;
}

/** Writes the scripts for what is left, and submits them. */
async function submit(sweep: Sweep, flags: Flags): Promise<number> {
  const tasks: number[] = [];
  for (const [i, { name }] of sweep.runs.entries()) {
    if (!await isComplete(sweep, name)) tasks.push(i);
  }
  if (tasks.length === 0) return await report(sweep);
  const { gpu } = flags as { readonly gpu?: unknown };
  const done = await submitToSlurm({
    name: "sweep",
    folder: sweep.folder,
    cwd: sweep.cwd,
    tasks,
    jobs: flags.jobs,
    options: flags.sbatch,
    task: [
      "sweep",
      `--out=${sweep.folder}`,
      ...(typeof gpu === "string" ? [`--gpu=${gpu}`] : []),
      "--task=#",
    ],
    merge: ["sweep", `--merge=${sweep.folder}`],
    mergeAfter: "afterany", // tables of what there is
  }, flags.dry_run);
  console.log(done);
  return 0;
}

/** Writes and prints what the runs came to. @returns 1 if any has not come to its end. */
async function report(sweep: Sweep): Promise<number> {
  const { folder } = sweep;
  const results = await readResults(sweep);
  const json = JSON.stringify(results, null, 2) + "\n";
  await writeAtomic(join(folder, "results.json"), json);
  await writeAtomic(join(folder, "results.csv"), resultsCsv(results));
  const page = sweepReport(`Sweep ${folder}`, results);
  await writeAtomic(join(folder, "sweep.html"), page);
  console.log(`\n${describeResults(results)}\n`);
  const open = results.filter(({ status }) => status !== "complete");
  for (const { name, status, error } of open) {
    console.log(`${status}: ${name}${error === null ? "" : `: ${error}`}`);
  }
  console.log(`tables and plots: ${join(folder, "sweep.html")}`);
  return open.length === 0 ? 0 : 1;
}

/** The task, for the command line; flags of `train` are read beside its own. */
export const SWEEP: TaskSpec<typeof SWEEP_FLAGS> = {
  name: "sweep",
  description:
    "Trains an SAE for every point of a grid over the flags of train, and compares them.",
  afterInterrupt: "the same command goes on with what is left",
  flags: { ...trainFlags(), ...SWEEP_FLAGS },
};

if (import.meta.main) await runTask(SWEEP, sweepTask);
