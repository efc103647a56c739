/**
 * The runs of a sweep as processes: `train`, then `eval` where a text is given.
 * @module
 */
import { join } from "node:path";
import { z } from "zod";
import { checkJson } from "../core/check_json.ts";
import type { GpuPlace } from "./gpu_places.ts";
import {
  hasLoss,
  isTrained,
  readRecord,
  type RecoveredLoss,
  type RunRecord,
  type Sweep,
  writeRecord,
} from "./sweep_folder.ts";
import { runTaskProcess, type TaskProcess } from "./task_process.ts";

/** How a run ended. */
export type RunOutcome =
  | { readonly kind: "complete" | "complete already" | "stopped" }
  | { readonly kind: "failed"; readonly error: string };

/** Where a run's processes run, and what stops them. */
interface Place {
  readonly gpu: GpuPlace;
  readonly signal: AbortSignal;
}

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
 */
export async function runPoint(
  sweep: Sweep,
  name: string,
  place: Place,
): Promise<RunOutcome> {
  const { signal } = place;
  const before = readRecord(sweep, name);
  const trained = await isTrained(sweep, name);
  if (trained && hasLoss(sweep, before)) return { kind: "complete already" };
  const started = performance.now();
  let record: RunRecord = { ...before, error: null };
  try {
    if (!trained) await train(sweep, name, place);
    if (!hasLoss(sweep, record)) {
      record = { ...record, loss: await evaluate(sweep, name, place) };
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
  place: Place,
): Promise<void> {
  const { folder } = sweep;
  const words = [
    `--config=${join(folder, `${name}.json`)}`,
    `--out=${join(folder, name)}`,
    ...place.gpu.words,
  ];
  await runOf(sweep, name, ["train", ...words], place);
}

async function evaluate(
  sweep: Sweep,
  name: string,
  place: Place,
): Promise<RunRecord["loss"]> {
  const { folder, evaluation } = sweep;
  if (evaluation === null) return null;
  const { text, documents, model } = evaluation;
  const words = [
    `--sae=${join(folder, name)}`,
    `--text=${text}`,
    `--documents=${documents}`,
    "--json",
    ...(model === null ? [] : [`--model=${model}`]),
    ...place.gpu.words,
  ];
  const printed = await runOf(sweep, name, ["eval", ...words], place);
  const { loss } = checkJson(Report, JSON.parse(printed), `eval of ${name}`);
  return { ...loss, on: evaluation };
}

/** A task of a run; what it says is added to the run's log. */
async function runOf(
  { folder, cwd }: Sweep,
  name: string,
  words: TaskProcess["words"],
  { gpu: { env }, signal }: Place,
): Promise<string> {
  const log = join(folder, `${name}.log`);
  return await runTaskProcess({ words, cwd, env, log }, signal);
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
