/**
 * Runs tasks as a person does: in a process of their own, with the permissions
 * that deno.json gives them.
 * @module
 */
import { dirname } from "node:path";

const ROOT = dirname(dirname(import.meta.dirname!));

/** How a task ended. */
export interface TaskRun {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** How to run a task. */
export interface RunOptions {
  /** Where the person types; the repository when absent. */
  readonly cwd?: string;
  readonly env?: Readonly<Record<string, string>>;
  /** What is piped in; nothing when absent. */
  readonly stdin?: string;
  /** Largest file that it can write, in KiB: beyond, writing fails as it does on a full disk. */
  readonly maxFileKiB?: number;
}

/** Starts a task, for tests that stop it; kill it, or await its status. */
export function startTask(
  [name, ...args]: readonly [task: string, ...args: string[]],
  { cwd = ROOT, env = {}, stdin, maxFileKiB }: RunOptions = {},
): Deno.ChildProcess {
  const { tasks } = JSON.parse(Deno.readTextFileSync(`${ROOT}/deno.json`));
  const words: string[] = [...tasks[name].command.split(" "), ...args];
  // A shell counts in blocks of 512 bytes; with the signal ignored, the write itself fails.
  const limit = `trap "" XFSZ; ulimit -f ${2 * (maxFileKiB ?? 0)}; exec "$@"`;
  const [program, ...rest] = maxFileKiB === undefined
    ? words
    : ["/bin/sh", "-c", limit, "sh", ...words];
  return new Deno.Command(program!, {
    args: rest,
    cwd: ROOT,
    env: { INIT_CWD: cwd, ...env },
    stdin: stdin === undefined ? "null" : "piped",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
}

/** Runs a task to its end. */
export async function runTask(
  words: readonly [task: string, ...args: string[]],
  options: RunOptions = {},
): Promise<TaskRun> {
  const child = startTask(words, options);
  if (options.stdin !== undefined) {
    const writer = child.stdin.getWriter();
    await writer.write(new TextEncoder().encode(options.stdin));
    await writer.close();
  }
  const { code, stdout, stderr } = await child.output();
  const decoder = new TextDecoder();
  return {
    code,
    stdout: decoder.decode(stdout),
    stderr: decoder.decode(stderr),
  };
}

/** A folder for one test, removed at its end. */
export function scratchFolder(): { path: string } & Disposable {
  const path = Deno.makeTempDirSync();
  return {
    path,
    [Symbol.dispose]: () => Deno.removeSync(path, { recursive: true }),
  };
}
