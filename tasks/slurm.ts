/**
 * Work on a cluster with Slurm: one array of jobs, each a task of this repository, and
 * a job behind it that puts together what they made.
 * @module
 */
import { join } from "node:path";
import { writeAtomic } from "../core/files.ts";
import { repoPath } from "./cli.ts";
import { commandLine, quoted, runInShell } from "./shell.ts";

/** Work as Slurm gets it. Every node must see its folders, and this repository. */
export interface SlurmWork {
  /** What it is: "collect". */
  readonly name: string;
  /** Folder for scripts and logs, absolute. */
  readonly folder: string;
  /** Where paths were typed, absolute. */
  readonly cwd: string;
  /** Numbers of the array's jobs, ascending. */
  readonly tasks: readonly number[];
  /** Most jobs at once; undefined for as many as Slurm starts. */
  readonly jobs: number | undefined;
  /** Further options of sbatch: "gres=gpu:1". */
  readonly options: readonly string[];
  /** What each job runs, behind `./ocs`; its number takes the place of `#` in the last word. */
  readonly task: readonly string[];
  /** What the job behind the array runs, behind `./ocs`. */
  readonly merge: readonly string[];
  /** Whether that is run when all jobs have ended well, or when they have ended in any way. */
  readonly mergeAfter: "afterok" | "afterany";
}

/** Seconds before a time limit at which a job is told to stop where it can go on. */
const SECONDS_TO_STOP = 120;

/** Options that say where a job runs, who pays and how long it may take: the job behind the array needs them as well. */
const ACCOUNTING: readonly string[] = [
  "account",
  "clusters",
  "export",
  "partition",
  "qos",
  "reservation",
  "time",
];

/** The script of the array. */
export function arrayScript(work: SlurmWork): string {
  const { name, cwd, tasks, jobs, options } = work;
  return script(
    [
      `job-name=ocs-${name}`,
      `array=${ranges(tasks)}${jobs === undefined ? "" : `%${jobs}`}`,
      `output=${logs(work)}/slurm-%A_%a.log`,
      "open-mode=append",
      "requeue",
      `signal=B:TERM@${SECONDS_TO_STOP}`,
      ...options,
    ],
    cwd,
    [...work.task.slice(0, -1).map(quoted), numbered(work.task.at(-1)!)],
  );
}

/** The script of the job behind the array. */
export function mergeScript(work: SlurmWork): string {
  return script(
    [
      `job-name=ocs-${work.name}-merge`,
      `output=${logs(work)}/slurm-%j.log`,
      ...work.options.filter((option) =>
        ACCOUNTING.includes(keyAndValue(option)[0])
      ),
    ],
    work.cwd,
    work.merge.map(quoted),
  );
}

/** Slurm puts its own words in the place of %. */
function logs({ folder }: SlurmWork): string {
  return folder.replaceAll("%", "%%");
}

/**
 * `exec`, so that signals for the script reach the task.
 * @param words What is behind `./ocs`, as a shell takes it.
 */
function script(
  options: readonly string[],
  cwd: string,
  words: readonly string[],
): string {
  return [
    "#!/bin/sh",
    ...options.map(directive),
    `cd ${quoted(cwd)} || exit`,
    `exec ${[quoted(repoPath("ocs")), ...words].join(" ")}`,
    "",
  ].join("\n");
}

function directive(option: string): string {
  if (/[\n\r]/.test(option)) {
    throw new TypeError(
      `Cannot write a script for Slurm: expected an option of sbatch in one line: got ${
        JSON.stringify(option)
      }`,
    );
  }
  const [key, value] = keyAndValue(option);
  if (value === undefined) return `#SBATCH --${key}`;
  const isPlain = /^[^\s"'\\#]*$/.test(value);
  return `#SBATCH --${key}=${
    isPlain ? value : `"${value.replace(/["\\]/g, "\\$&")}"`
  }`;
}

function keyAndValue(option: string): [key: string, value?: string] {
  const [, key = "", value] = /^(?:--)?([^=]*)(?:=(.*))?$/s.exec(option) ?? [];
  return value === undefined ? [key] : [key, value];
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

/** A word with the number of the array's job in the place of `#`. */
function numbered(word: string): string {
  return word.split("#").map((part) => part && quoted(part))
    .join(`"$SLURM_ARRAY_TASK_ID"`);
}

/** Writes both scripts into the work's folder, which is made; returns their paths. */
async function writeScripts(
  work: SlurmWork,
): Promise<{ array: string; merge: string }> {
  const array = join(work.folder, "array.sbatch");
  const merge = join(work.folder, "merge.sbatch");
  const scripts = [arrayScript(work), mergeScript(work)] as const;
  await Deno.mkdir(work.folder, { recursive: true });
  await writeAtomic(array, scripts[0]);
  await writeAtomic(merge, scripts[1]);
  return { array, merge };
}

/**
 * Writes the scripts and submits them; or, for a dry run, says how to.
 * @returns What was done, to print.
 * @throws {Error} If sbatch is missing or refuses: its own words, and what is submitted already.
 */
export async function submitToSlurm(
  work: SlurmWork,
  isDryRun: boolean,
): Promise<string> {
  const scripts = await writeScripts(work);
  const behind = (array: string): string[] => [
    `--dependency=${work.mergeAfter}:${array}`,
    // Else a job that can never begin would wait in the queue for good.
    "--kill-on-invalid-dep=yes",
    scripts.merge,
  ];
  if (isDryRun) {
    return [["sbatch", scripts.array], ["sbatch", ...behind("ARRAY")]]
      .map(commandLine).join("\n");
  }
  const array = await sbatch([scripts.array]);
  const merge = await sbatch(behind(array)).catch((cause) => {
    throw new Error(
      `${cause.message}; array ${array} is submitted already: scancel ${array}, or when it has ended run ./ocs ${
        commandLine(work.merge)
      }`,
      { cause },
    );
  });
  return `submitted ${work.tasks.length} ${
    work.tasks.length === 1 ? "job" : "jobs"
  } as array ${array}, and behind it job ${merge}, ./ocs ${
    commandLine(work.merge)
  }; scripts and logs: ${work.folder}`;
}

async function sbatch(words: readonly string[]): Promise<string> {
  const command = ["sbatch", "--parsable", ...words];
  const { code, stdout, stderr } = await runInShell(command);
  // NUMBER, or NUMBER;CLUSTER.
  const job = /^(\d+)(;.*)?$/m.exec(stdout)?.[1];
  if (code === 0 && job !== undefined) return job;
  throw new Error(
    `Cannot submit to Slurm: expected ${
      commandLine(command)
    } to print a job's number: got ${
      stderr.trim().replace(/\s*\n\s*/g, " ") || `code ${code}`
    }: run it where sbatch is installed, or write the scripts only, with --dry-run`,
  );
}
