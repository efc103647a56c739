/**
 * The runs of a sweep as processes: `train`, then `eval` where a text is given.
 * @module
 */
import { join } from "node:path";
import { z } from "zod";
import { checkJson } from "../core/check_json.ts";
import { repoPath } from "./cli.ts";
import {
  hasLoss,
  isTrained,
  readRecord,
  type RecoveredLoss,
  type RunRecord,
  type Sweep,
  writeRecord,
} from "./sweep_folder.ts";

/** How a run ended. */
export type RunOutcome =
  | { readonly kind: "complete" | "complete already" | "stopped" }
  | { readonly kind: "failed"; readonly error: string };

/** Cross-entropies as `eval --json` prints them. */
const Report: z.ZodType<{ loss: RecoveredLoss }> = z.object({
  loss: z.object({
    recoveredFromZero: z.number(),
    recoveredFromMean: z.number(),
    ceModel: z.number(),
    ceSae: z.number(),
  }),
});

/**
 * Brings a run to its end, from wherever it stands. When `signal` is aborted,
 * its process is asked to stop, which leaves a checkpoint.
 * @param gpu Value of `--gpu`; the run's own when absent.
 */
export async function runPoint(
  sweep: Sweep,
  name: string,
  gpu: string | undefined,
  signal: AbortSignal,
): Promise<RunOutcome> {
  const before = readRecord(sweep, name);
  const trained = await isTrained(sweep, name);
  if (trained && hasLoss(sweep, before)) return { kind: "complete already" };
  const started = performance.now();
  let record: RunRecord = { ...before, error: null };
  try {
    if (!trained) await train(sweep, name, gpu, signal);
    if (!hasLoss(sweep, record)) {
      record = { ...record, loss: await evaluate(sweep, name, gpu, signal) };
    }
  } catch (error) {
    if (!signal.aborted) record = { ...record, error: messageOf(error) };
  }
  const seconds = before.seconds + (performance.now() - started) / 1000;
  await writeRecord(sweep, name, { ...record, seconds });
  if (record.error !== null) return { kind: "failed", error: record.error };
  return { kind: signal.aborted ? "stopped" : "complete" };
}

async function train(
  sweep: Sweep,
  name: string,
  gpu: string | undefined,
  signal: AbortSignal,
): Promise<void> {
  const { folder } = sweep;
  const words = [
    `--config=${join(folder, `${name}.json`)}`,
    `--out=${join(folder, name)}`,
    ...(gpu === undefined ? [] : [`--gpu=${gpu}`]),
  ];
  await runTaskProcess(sweep, name, ["train", ...words], signal);
}

async function evaluate(
  sweep: Sweep,
  name: string,
  gpu: string | undefined,
  signal: AbortSignal,
): Promise<RunRecord["loss"]> {
  const { folder, evaluation, base } = sweep;
  if (evaluation === null) return null;
  const { text, documents, model } = evaluation;
  const ownGpu = typeof base["gpu"] === "string" ? base["gpu"] : undefined;
  const device = gpu ?? ownGpu;
  const words = [
    `--sae=${join(folder, name)}`,
    `--text=${text}`,
    `--documents=${documents}`,
    "--json",
    ...(model === null ? [] : [`--model=${model}`]),
    ...(device === undefined ? [] : [`--gpu=${device}`]),
  ];
  const printed = await runTaskProcess(sweep, name, ["eval", ...words], signal);
  const { loss } = checkJson(Report, JSON.parse(printed), `eval of ${name}`);
  return { ...loss, on: evaluation };
}

/**
 * Runs a task with the permissions that deno.json gives it; what it says is added to the run's log.
 * @returns What it printed as its result.
 * @throws {Error} If it fails: its own message.
 */
async function runTaskProcess(
  { folder, cwd }: Sweep,
  name: string,
  [task, ...words]: readonly [task: string, ...words: string[]],
  signal: AbortSignal,
): Promise<string> {
  signal.throwIfAborted();
  const [program = "", ...command] = taskCommand(task);
  using log = Deno.openSync(join(folder, `${name}.log`), {
    append: true,
    create: true,
  });
  const line = `$ ./ocs ${task} ${words.join(" ")}\n`;
  log.writeSync(new TextEncoder().encode(line));
  const child = new Deno.Command(program, {
    args: [...command, ...words],
    cwd: repoPath("."),
    env: { INIT_CWD: cwd },
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  // Not SIGINT: a terminal has sent that already, and a second one ends a task at once.
  const stop = (): void => child.kill("SIGTERM");
  signal.addEventListener("abort", stop);
  try {
    const [stdout, stderr, { code }] = await Promise.all([
      collect(child.stdout, log),
      collect(child.stderr, log),
      child.status,
    ]);
    if (code === 0) return stdout;
    signal.throwIfAborted();
    throw new Error(lastError(stderr) ?? `${task} ended with code ${code}`);
  } finally {
    signal.removeEventListener("abort", stop);
  }
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
): Promise<string> {
  const decoder = new TextDecoder();
  let text = "";
  for await (const chunk of stream) {
    for (let written = 0; written < chunk.length;) {
      written += log.writeSync(chunk.subarray(written));
    }
    text += decoder.decode(chunk, { stream: true });
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

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
