/**
 * A sweep on a cluster: one Slurm array with a task for each run, and a job behind it that makes the tables.
 * @module
 */
import { join } from "node:path";
import { writeAtomic } from "../core/files.ts";
import { repoPath } from "./cli.ts";

/** A sweep as Slurm gets it. */
export interface SlurmSweep {
  /** Folder of the sweep, absolute; every node must see it, and this repository. */
  readonly folder: string;
  /** Places of the runs to do in the sweep's list, ascending. */
  readonly tasks: readonly number[];
  /** Most runs at once. */
  readonly jobs: number;
  /** Further options of sbatch: "gres=gpu:1". */
  readonly options: readonly string[];
  /** Flags of `sweep` that every task gets. */
  readonly flags: readonly string[];
}

/** Seconds before a time limit at which a run is told to write a checkpoint. */
const SECONDS_TO_STOP = 120;

/** The script of the array. */
export function arrayScript(sweep: SlurmSweep): string {
  const { folder, tasks, jobs, options } = sweep;
  return script([
    "job-name=ocs-sweep",
    `array=${ranges(tasks)}%${jobs}`,
    `output=${folder}/slurm-%A_%a.log`,
    "open-mode=append",
    "requeue",
    `signal=B:TERM@${SECONDS_TO_STOP}`,
    ...options,
  ], [
    // exec: so that signals for the script reach the task, which leaves a checkpoint.
    `exec ${quoted(repoPath("ocs"))} sweep --task="$SLURM_ARRAY_TASK_ID"`,
    `--out=${quoted(folder)}`,
    ...sweep.flags.map(quoted),
  ]);
}

/** The script of the job that makes the tables. */
export function mergeScript({ folder }: SlurmSweep): string {
  return script(
    ["job-name=ocs-sweep-merge", `output=${folder}/slurm-%j.log`],
    [`exec ${quoted(repoPath("ocs"))} sweep --merge=${quoted(folder)}`],
  );
}

function script(
  options: readonly string[],
  words: readonly string[],
): string {
  const lines = options.map((option) =>
    `#SBATCH --${option.replace(/^--/, "")}`
  );
  return ["#!/bin/sh", ...lines, words.join(" "), ""].join("\n");
}

/** Numbers as sbatch takes them: 0-3,5. */
function ranges(numbers: readonly number[]): string {
  const runs: [start: number, end: number][] = [];
  for (const n of numbers) {
    const last = runs.at(-1);
    if (last && n === last[1] + 1) last[1] = n;
    else runs.push([n, n]);
  }
  return runs.map(([start, end]) =>
    start === end ? String(start) : `${start}-${end}`
  ).join(",");
}

function quoted(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text)
    ? text
    : `'${text.replaceAll("'", `'\\''`)}'`;
}

/** Writes both scripts into the sweep's folder; returns their paths. */
export async function writeScripts(
  sweep: SlurmSweep,
): Promise<{ array: string; merge: string }> {
  const array = join(sweep.folder, "array.sbatch");
  const merge = join(sweep.folder, "merge.sbatch");
  await writeAtomic(array, arrayScript(sweep));
  await writeAtomic(merge, mergeScript(sweep));
  return { array, merge };
}

/**
 * Submits the array, and the tables to be made when all of it has ended, well or not.
 * @returns Numbers of the two jobs.
 * @throws {Error} If sbatch is missing or refuses: its own words.
 */
export async function submitScripts(
  scripts: { readonly array: string; readonly merge: string },
): Promise<{ array: string; merge: string }> {
  const array = await sbatch([scripts.array]);
  const merge = await sbatch([`--dependency=afterany:${array}`, scripts.merge]);
  return { array, merge };
}

/** Runs sbatch through Deno's own shell, so that no permission to run it is needed where it is not installed. */
async function sbatch(words: readonly string[]): Promise<string> {
  const command = ["sbatch", "--parsable", ...words].map(quoted).join(" ");
  const { code, stdout, stderr } = await new Deno.Command("deno", {
    args: ["task", "-q", "--eval", command],
    cwd: repoPath("."),
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).output();
  const decoder = new TextDecoder();
  // NUMBER, or NUMBER;CLUSTER.
  const job = /^(\d+)(;.*)?$/m.exec(decoder.decode(stdout))?.[1];
  if (code === 0 && job !== undefined) return job;
  const said = decoder.decode(stderr).trim().replace(/\s*\n\s*/g, " ");
  throw new Error(
    `Cannot submit to Slurm: expected ${command} to print a job's number: got ${
      said || `code ${code}`
    }: run it where sbatch is installed, or write the scripts only, with --dry-run`,
  );
}
