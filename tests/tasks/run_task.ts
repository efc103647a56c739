/**
 * Runs tasks as a person does: in a process of their own, with the permissions
 * that deno.json gives them.
 * @module
 */
import { dirname, join } from "node:path";

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
}

/** Starts a task, for tests that stop it; kill it, or await its status. */
export function startTask(
  [name, ...args]: readonly [task: string, ...args: string[]],
  { cwd = ROOT, env = {}, stdin }: RunOptions = {},
): Deno.ChildProcess {
  const { tasks } = JSON.parse(Deno.readTextFileSync(`${ROOT}/deno.json`));
  const [program, ...words] = tasks[name].command.split(" ");
  return new Deno.Command(program, {
    args: [...words, ...args],
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

/**
 * Makes a folder look as a run left it right after it began, with a folder in the place
 * of one of its files, so that writing this file fails as it does on a full disk.
 * @returns The folder in the way; remove it, and the run can go on.
 */
export function blockFile(
  finished: string,
  folder: string,
  file: string,
): string {
  const { kind, fingerprint } = JSON.parse(
    Deno.readTextFileSync(join(finished, "manifest.json")),
  );
  const obstacle = join(folder, file);
  Deno.mkdirSync(obstacle, { recursive: true });
  Deno.writeTextFileSync(
    join(folder, "manifest.json"),
    JSON.stringify({ kind, fingerprint }),
  );
  return obstacle;
}
