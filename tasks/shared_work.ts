/**
 * Work that is split into shares: done by processes of this machine or jobs of a cluster, each with
 * `--shard`, and put together behind them. What is done already is not done again.
 * @module
 */
// deno-lint-ignore-file no-console
import { basename, join } from "node:path";
import type { TextShard } from "../core/text.ts";
import { type TaskContext, userPath } from "./cli.ts";
import type { SharedFlags } from "./engine_flags.ts";
import { type GpuPlace, gpuPlace, gpuPlaces } from "./gpu_places.ts";
import { commandLine } from "./shell.ts";
import { submitToSlurm } from "./slurm.ts";
import { runTaskProcess } from "./task_process.ts";

/** What is shared. */
export interface SharedWork {
  /** The task: "collect". */
  readonly name: string;
  /** The folder that it writes, as it was typed; all shares write into it. */
  readonly out: string;
  /** Flags of each share but `--shard` and `--gpu`, as they were typed. */
  readonly words: readonly string[];
  /** Value of `--gpu`. */
  readonly gpu: string | undefined;
  /** What puts the shares together, behind `./ocs`. */
  readonly merge: readonly [task: string, ...words: string[]];
  /** Whether a share is done; throws where the folder is not for this work. */
  isDone(shard: TextShard): Promise<boolean>;
}

/**
 * Does or submits the shares that are not done.
 * @returns The exit code: 1 if a share failed.
 * @throws {Error} If the folder is another run's, or the cluster refuses.
 */
export async function shareWork(
  work: SharedWork,
  flags: SharedFlags,
  context: TaskContext,
): Promise<number> {
  const places = await placesOf(work, flags);
  const count = flags.tasks ?? places.length;
  const left: number[] = [];
  for (let index = 0; index < count; index++) {
    if (!await work.isDone({ index, count })) left.push(index);
  }
  if (left.length < count) {
    context.note(`${count - left.length} of ${count} shares are done already`);
  }
  if (flags.engine === "local") {
    return await runHere(work, places, left, count, context);
  }
  if (left.length > 0) return await submit(work, flags, left, count);
  console.log(
    `nothing is left to submit: ./ocs ${
      commandLine(work.merge)
    } puts the shares together`,
  );
  return 0;
}

/** As many as processes at once. */
async function placesOf(
  { gpu }: SharedWork,
  flags: SharedFlags,
): Promise<GpuPlace[]> {
  const gpus = flags.gpus === undefined
    ? [gpuPlace(gpu)]
    : await gpuPlaces(flags.gpus);
  return gpus.flatMap((place) => Array<GpuPlace>(flags.jobs ?? 1).fill(place));
}

/** Where scripts and logs go: beside the folder, which is for the results alone and may be in an object store. */
export function jobsFolder(out: string): string {
  const isRemote = /^\w+:\/\//.test(out);
  return `${userPath(isRemote ? basename(out) : out)}.jobs`;
}

async function submit(
  { name, out, words, gpu, merge }: SharedWork,
  { sbatch, jobs, dry_run }: SharedFlags,
  left: readonly number[],
  count: number,
): Promise<number> {
  const done = await submitToSlurm({
    name,
    folder: jobsFolder(out),
    cwd: userPath("."),
    tasks: left,
    jobs,
    options: sbatch,
    task: [name, ...words, ...gpuPlace(gpu).words, `--shard=#/${count}`],
    merge,
    mergeAfter: "afterok",
  }, dry_run);
  console.log(done);
  if (!dry_run) {
    console.log(
      "if a job fails, nothing is merged: the same command submits what is left, once the array has ended",
    );
  }
  return 0;
}

async function runHere(
  work: SharedWork,
  places: readonly GpuPlace[],
  left: readonly number[],
  count: number,
  context: TaskContext,
): Promise<number> {
  const { merge, out } = work;
  const { signal, note } = context;
  const folder = jobsFolder(out);
  await Deno.mkdir(folder, { recursive: true });
  const waiting = left.values();
  let nFailed = 0;
  const workOn = async (place: GpuPlace): Promise<void> => {
    for (const index of waiting) {
      if (signal.aborted) return;
      const error = await runShare(work, place, { index, count }, context);
      if (error === undefined || signal.aborted) continue;
      nFailed++;
      console.error(`share ${index} of ${count} failed: ${error}`);
    }
  };
  await Promise.all(places.map(workOn));
  signal.throwIfAborted();
  if (nFailed > 0) {
    console.error(
      `${nFailed} of ${count} shares failed: the same command does what is left; logs: ${folder}`,
    );
    return 1;
  }
  note(`$ ./ocs ${commandLine(merge)}`);
  const merged = await runTaskProcess({
    words: merge,
    cwd: userPath("."),
    log: join(folder, "merge.log"),
  }, signal);
  console.log(merged.trimEnd());
  return 0;
}

/** Does a share; returns what it says of its failure. */
async function runShare(
  { name, words, out }: SharedWork,
  place: GpuPlace,
  { index, count }: TextShard,
  { signal, note }: TaskContext,
): Promise<string | undefined> {
  const label = `[${index}/${count}${place.name && ` on ${place.name}`}]`;
  try {
    const printed = await runTaskProcess({
      words: [name, ...words, ...place.words, `--shard=${index}/${count}`],
      cwd: userPath("."),
      env: place.env,
      log: join(jobsFolder(out), `${index}-of-${count}.log`),
      onMessage: (line) => note(`${label} ${line}`),
    }, signal);
    note(`${label} ${printed.trimEnd()}`);
    return undefined;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}
