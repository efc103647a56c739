/**
 * The frame of every task: flags, errors in one line, Ctrl-C, the GPU, progress.
 * @module
 */
// deno-lint-ignore-file no-console
import { basename, dirname, join } from "node:path";
import { directory } from "../core/files.ts";
import {
  type ConfigOf,
  configPath,
  type FlagTable,
  mergeConfig,
  parseFlags,
} from "../core/flags.ts";
import { type ModelFolder, openModelFolder } from "../core/model_folder.ts";
import { SaeFile } from "../core/sae_file.ts";
import { type Folder, readJson } from "../core/source.ts";
import { Gpu, GpuLostError } from "../gpu/mod.ts";
import { formatBytes } from "./format.ts";
import { isFile, openFolderOrRepo } from "./hub_folder.ts";
import { Progress, type ProgressOptions } from "./progress.ts";
import { userPath } from "./storage.ts";

export { openPath, userPath } from "./storage.ts";

const ROOT = dirname(import.meta.dirname!);

/** `--gpu`, for tasks that compute. */
export const GPU_FLAGS = {
  gpu: {
    type: "string",
    help: "GPU to use, by index or a part of its name; the first without it",
  },
} as const satisfies FlagTable;

/** `--model`; give its value to {@link openModel}. */
export const MODEL_FLAG = {
  model: {
    type: "string",
    help:
      "folder or repository id of an OLMo-2 model, as owner/name[@revision] after ./ocs download; models/tiny-olmo2 of this repo without it",
  },
} as const satisfies FlagTable;

/** `--quantize`; give its value to {@link openModel}. */
export const QUANTIZE_FLAG = {
  quantize: {
    default: "none",
    choices: ["none", "q8", "q4"],
    help:
      "round the model's matrices as they are loaded: q8 to 8 bits, q4 to 4 but for embedding and head",
  },
} as const satisfies FlagTable;

/** Values of {@link QUANTIZE_FLAG}. */
export type QuantizeFlag = ConfigOf<typeof QUANTIZE_FLAG>["quantize"];

/** `--sae`, and what it takes to read one; give the value to {@link openSae}. */
export const SAE_FLAG = {
  sae: {
    type: "string",
    help:
      "SAE: a folder, its file (sae_final.pt, ae.pt, params.npz), or a repository id, as owner/name[/folder][@revision] after ./ocs download; models/tiny-olmo2-sae of this repo without it",
  },
} as const satisfies FlagTable;

/** `--any-model`, for {@link checkSaeFits} of core. */
export const ANY_MODEL_FLAG = {
  any_model: {
    default: false,
    help:
      "take an SAE of another model of the same sizes, such as the base of a tuned one",
  },
} as const satisfies FlagTable;

/** `--seed`. */
export const SEED_FLAG = {
  seed: {
    default: 0,
    integer: true,
    min: 0,
    help: "seed of everything random",
  },
} as const satisfies FlagTable;

/** Exit code of a task whose GPU was lost: that of a temporary failure, as sysexits.h has it. Running it again may help. */
const GPU_LOST_CODE = 75;

/** Flags that every task has. */
const COMMON_FLAGS = {
  quiet: { default: false, help: "say nothing of progress" },
} as const satisfies FlagTable;

/** A task. */
export interface TaskSpec<T extends FlagTable> {
  /** As it is typed: "collect". */
  readonly name: string;
  /** What it does, in one line. */
  readonly description: string;
  readonly flags: T;
  /** Flags that arguments without a flag set, in order. */
  readonly positionals?: readonly (keyof T & string)[];
  /** What is said after Ctrl-C, such as how to go on. */
  readonly afterInterrupt?: string;
  /** Whether the task listens to SIGINT itself; then `context.signal` is for SIGTERM only. */
  readonly ownsInterrupt?: boolean;
}

/** Memory that a task is going to hold. */
export interface PlanRow {
  /** What for: "model", "activations". */
  readonly what: string;
  readonly bytes: number;
}

/** What a task gets besides its flags. */
export interface TaskContext {
  /** Aborted by Ctrl-C or SIGTERM; stop at the next good moment with `signal.throwIfAborted()`. A second Ctrl-C ends at once. */
  readonly signal: AbortSignal;
  /** Whether `--quiet` was given. */
  readonly quiet: boolean;
  /** Opens a GPU, says its name, and frees it when the task ends; the same one every time. */
  openGpu(gpu: string | undefined): Promise<Gpu>;
  /** Says what memory will be held, before it is taken. */
  plan(rows: readonly PlanRow[]): void;
  /** Starts progress; silent with `--quiet`. */
  progress(options: Omit<ProgressOptions, "quiet">): Progress;
  /** Says something on standard error, which is not a result; silent with `--quiet`. */
  note(text: string): void;
}

/** Why `context.signal` is aborted. */
class Interrupt extends Error {
  /** Exit code by the custom of shells: 128 + number of the signal. */
  readonly exitCode: number;

  constructor(signal: "SIGINT" | "SIGTERM") {
    super(signal === "SIGINT" ? "stopped by Ctrl-C" : "stopped by SIGTERM");
    this.exitCode = signal === "SIGINT" ? 130 : 143;
  }
}

/**
 * Runs a task with this process's arguments, and ends the process: with code 0,
 * the code that the task returns, or 1 (75 where the GPU was lost) and one line `error: …` on standard error.
 * OCS_TRACE=1 shows where an error comes from.
 */
export async function runTask<const T extends FlagTable>(
  task: TaskSpec<T>,
  run: (config: ConfigOf<T>, context: TaskContext) => Promise<number | void>,
): Promise<never> {
  let code: number;
  try {
    code = await runWith(task, run, Deno.args);
  } catch (error) {
    code = error instanceof Interrupt
      ? error.exitCode
      : error instanceof GpuLostError
      ? GPU_LOST_CODE
      : 1;
    printError(error, task.afterInterrupt);
  }
  Deno.exit(code);
}

/**
 * Runs a task as a stage of another, with arguments as they are typed, and says so.
 * @throws {Error} As the task.
 */
export async function runStage<const T extends FlagTable, R>(
  task: TaskSpec<T>,
  run: (config: ConfigOf<T>, context: TaskContext) => Promise<R>,
  argv: readonly string[],
  context: TaskContext,
): Promise<R> {
  context.note(`$ ./ocs ${task.name} ${argv.join(" ")}`);
  const { name, description, flags, positionals = [] } = task;
  const parsed = parseFlags(flags, argv, { name, description, positionals });
  if ("help" in parsed) throw new TypeError(`Cannot run ${name}: got --help`);
  return await run(parsed as ConfigOf<T>, context);
}

async function runWith<const T extends FlagTable>(
  task: TaskSpec<T>,
  run: (config: ConfigOf<T>, context: TaskContext) => Promise<number | void>,
  argv: readonly string[],
): Promise<number> {
  const { name, description, positionals = [] } = task;
  const table: FlagTable = { ...task.flags, ...COMMON_FLAGS };
  const parsed = parseFlags<FlagTable>(table, argv, {
    name,
    description,
    positionals,
    config: await readConfig(table, argv),
  });
  if ("help" in parsed) {
    console.log(parsed["help"]);
    return 0;
  }
  const { quiet, ...config } = parsed;
  using owned = new DisposableStack();
  const context = taskContext(owned, quiet === true);
  const signal = listen(owned, task.ownsInterrupt ?? false);
  // The table is the task's, plus the common flags that were just taken out.
  return await run(config as ConfigOf<T>, { ...context, signal }) ?? 0;
}

/** Values of the file that `--config` names. */
async function readConfig(
  table: FlagTable,
  argv: readonly string[],
): Promise<Partial<ConfigOf<FlagTable>>> {
  const typed = configPath(table, argv);
  if (typed === undefined) return {};
  const path = userPath(typed);
  const source = await directory(dirname(path)).open(basename(path));
  return mergeConfig(table, await readJson(source), source.name);
}

function taskContext(
  owned: DisposableStack,
  quiet: boolean,
): Omit<TaskContext, "signal"> {
  const note = (text: string): void => {
    if (!quiet) console.error(text);
  };
  const gpus = new Map<string | undefined, Gpu>();
  return {
    quiet,
    note,
    async openGpu(wanted): Promise<Gpu> {
      const opened = gpus.get(wanted);
      if (opened) return opened;
      chooseBackend();
      const gpu = owned.use(
        await Gpu.open(wanted === undefined ? {} : { gpu: wanted }),
      );
      gpus.set(wanted, gpu);
      note(`GPU: ${gpu.name}`);
      return gpu;
    },
    plan(rows): void {
      const total = rows.reduce((sum, { bytes }) => sum + bytes, 0);
      const parts = rows.map(({ what, bytes }) =>
        `${what} ${formatBytes(bytes)}`
      );
      note(`memory: ${formatBytes(total)} = ${parts.join(" + ")}`);
    },
    progress: (options) => owned.use(new Progress({ ...options, quiet })),
  };
}

/** Names the graphics interface where the system has one that Deno passes over in silence. */
function chooseBackend(): void {
  const backend = { linux: "vulkan", darwin: "metal" } as Record<
    string,
    string
  >;
  const wanted = backend[Deno.build.os];
  if (wanted !== undefined && !Deno.env.get("DENO_WEBGPU_BACKEND")) {
    Deno.env.set("DENO_WEBGPU_BACKEND", wanted);
  }
}

/** Turns signals into an abort; the second SIGINT ends the process. */
function listen(owned: DisposableStack, ownsInterrupt: boolean): AbortSignal {
  const controller = new AbortController();
  const on = (name: "SIGINT" | "SIGTERM", listener: () => void): void => {
    Deno.addSignalListener(name, listener);
    owned.defer(() => Deno.removeSignalListener(name, listener));
  };
  if (!ownsInterrupt) {
    on("SIGINT", () => {
      if (controller.signal.aborted) Deno.exit(130);
      console.error("\nstopping; Ctrl-C again ends at once");
      controller.abort(new Interrupt("SIGINT"));
    });
  }
  // Windows has no SIGTERM.
  if (Deno.build.os !== "windows") {
    on("SIGTERM", () => controller.abort(new Interrupt("SIGTERM")));
  }
  return controller.signal;
}

function printError(error: unknown, afterInterrupt?: string): void {
  if (error instanceof Interrupt) {
    console.error(
      error.message + (afterInterrupt ? `: ${afterInterrupt}` : ""),
    );
    return;
  }
  const message = error instanceof Error ? error.message : String(error);
  console.error(`error: ${message.replace(/\s*\n\s*|\p{Cc}/gu, " ")}`);
  if (Deno.env.get("OCS_TRACE") === "1") console.error(error);
}

/** A path of this repository. */
export function repoPath(path: string): string {
  return join(ROOT, path);
}

/**
 * Opens the folder of the model that `--model` names, or of the embedded one.
 * @throws {Error} If there is neither a folder nor a repository in the cache.
 */
export async function modelDirectory(
  typed: string | undefined,
): Promise<Folder> {
  return typed === undefined
    ? directory(repoPath("models/tiny-olmo2"))
    : await openFolderOrRepo("model", typed, userPath(typed));
}

/**
 * Opens the model that `--model` names, or the embedded one.
 * @throws {Error} As `openModelFolder`.
 */
export async function openModel(
  typed: string | undefined,
  quantize: QuantizeFlag = "none",
): Promise<ModelFolder> {
  const folder = await modelDirectory(typed);
  return await openModelFolder(
    folder,
    quantize === "none" ? undefined : quantize,
  );
}

/**
 * Opens the SAE that `--sae` names, or the embedded one.
 * @param typed A folder, a file of weights, or a repository id.
 * @param layer Block it was trained behind, for files that do not tell.
 * @throws {Error} As `SaeFile.open`.
 */
export async function openSae(
  typed: string | undefined,
  layer?: number,
): Promise<SaeFile> {
  const at = layer === undefined ? {} : { layer };
  const path = typed === undefined
    ? repoPath("models/tiny-olmo2-sae")
    : userPath(typed);
  if (isFile(path)) {
    const file = basename(path);
    return await SaeFile.open(directory(dirname(path)), { ...at, file });
  }
  return await SaeFile.open(
    typed === undefined
      ? directory(path)
      : await openFolderOrRepo("SAE", typed, path),
    at,
  );
}
