/**
 * Tasks as processes of their own, as a person would start them.
 * @module
 */
import type { FlagTable } from "../core/flags.ts";
import { flagName } from "../core/flag_table.ts";
import { repoPath } from "./cli.ts";
import { commandLine } from "./shell.ts";

/** A task to run. */
export interface TaskProcess {
  /** The task and its arguments, as they are typed behind `./ocs`. */
  readonly words: readonly [task: string, ...words: string[]];
  /** Where paths among them were typed. */
  readonly cwd: string;
  /** Variables beside those of this process. */
  readonly env?: Readonly<Record<string, string>>;
  /** File that what it says is added to. */
  readonly log: string;
  /** Told each line that it writes to standard error. */
  readonly onMessage?: (line: string) => void;
}

/**
 * Runs a task with the permissions that deno.json gives it. When `signal` is aborted,
 * it is asked to stop, and waited for.
 * @returns What it printed as its result.
 * @throws {Error} If it fails: its own message.
 */
export async function runTaskProcess(
  { words, cwd, env = {}, log: path, onMessage }: TaskProcess,
  signal: AbortSignal,
): Promise<string> {
  signal.throwIfAborted();
  const [task, ...args] = words;
  const [program = "", ...command] = taskCommand(task);
  using log = Deno.openSync(path, { append: true, create: true });
  const line = `$ ./ocs ${commandLine(words)}\n`;
  log.writeSync(new TextEncoder().encode(line));
  const child = new Deno.Command(program, {
    args: [...command, ...args],
    cwd: repoPath("."),
    env: { ...env, INIT_CWD: cwd },
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  // Not SIGINT: a terminal has sent that already, and a second one ends a task at once.
  const stop = (): void => {
    try {
      child.kill("SIGTERM");
    } catch {
      // It has just ended by itself.
    }
  };
  signal.addEventListener("abort", stop);
  try {
    const [stdout, stderr, { code }] = await Promise.all([
      collect(child.stdout, log),
      collect(child.stderr, log, onMessage),
      child.status,
    ]);
    if (code === 0) return stdout;
    signal.throwIfAborted();
    throw new Error(lastError(stderr) ?? `${task} ended with code ${code}`);
  } finally {
    signal.removeEventListener("abort", stop);
  }
}

/**
 * Values of flags as they are typed, each as one word.
 * @param without Flags to leave out.
 */
export function flagWords(
  table: FlagTable,
  values: Readonly<Record<string, unknown>>,
  without: readonly string[] = [],
): string[] {
  return Object.keys(table)
    .filter((key) => !without.includes(key))
    .flatMap((key) => {
      const value = values[key];
      if (value === undefined) return [];
      if (value === true) return [flagName(key)];
      if (value === false) {
        const flag = table[key]!;
        const isOn = "default" in flag && flag.default === true;
        return isOn ? [flagName(`no_${key}`)] : [];
      }
      const items = Array.isArray(value) ? value : [value];
      return items.map((item) => `${flagName(key)}=${item}`);
    });
}

/** The command line of a task, from deno.json. */
function taskCommand(task: string): string[] {
  const { tasks } = JSON.parse(Deno.readTextFileSync(repoPath("deno.json")));
  return tasks[task].command.split(" ");
}

/** The whole of a stream, which goes into the log as it comes. */
async function collect(
  stream: ReadableStream<Uint8Array>,
  log: Deno.FsFile,
  onLine?: (line: string) => void,
): Promise<string> {
  const decoder = new TextDecoder();
  let text = "";
  let nTold = 0;
  for await (const chunk of stream) {
    for (let written = 0; written < chunk.length;) {
      written += log.writeSync(chunk.subarray(written));
    }
    text += decoder.decode(chunk, { stream: true });
    for (
      let end = text.indexOf("\n", nTold);
      onLine && end >= 0;
      end = text.indexOf("\n", nTold)
    ) {
      onLine(text.slice(nTold, end));
      nTold = end + 1;
    }
  }
  return text;
}

/** What a task says of its failure, without "error: ". */
function lastError(stderr: string): string | undefined {
  const lines = stderr.trim().split("\n");
  const line = lines.findLast((line) => line.startsWith("error: ")) ??
    lines.at(-1);
  return line?.replace(/^error: /, "") || undefined;
}
