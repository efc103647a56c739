/**
 * The folder of a sweep: which runs it has, and what became of them.
 *
 * `manifest.json` lists the runs. Of a run NAME there are its flags in `NAME.json`, for
 * `--config` of `train`, its folder `NAME/`, its output in `NAME.log`, and in
 * `NAME.run.json` what the sweep knows of it.
 * @module
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { checkJson } from "../core/check_json.ts";
import {
  claimOutputFolder,
  fingerprint,
  readManifest,
  writeAtomic,
  writeManifest,
} from "../core/files.ts";
import type { GridPoint, GridValue } from "./sweep_grid.ts";

/** Text that the cross-entropy recovered is measured on. */
export interface SweepEvaluation {
  readonly text: string;
  /** Most documents of it. */
  readonly documents: number;
  /** Folder of the model as typed; null for the embedded one. */
  readonly model: string | null;
}

/** What all runs of a sweep share. */
export interface SweepSettings {
  /** Where paths were typed. */
  readonly cwd: string;
  /** Flags of `train` before the grid's. */
  readonly base: Readonly<Record<string, unknown>>;
  /** null where it is not measured. */
  readonly evaluation: SweepEvaluation | null;
}

/** A sweep on disk. */
export interface Sweep extends SweepSettings {
  /** Absolute path. */
  readonly folder: string;
  readonly runs: readonly GridPoint[];
}

/** Cross-entropies of the model with an SAE in its stream. */
export interface RecoveredLoss {
  readonly recoveredFromZero: number;
  readonly recoveredFromMean: number;
  readonly ceModel: number;
  readonly ceSae: number;
}

/** What the sweep knows of a run besides the run's own files. */
export interface RunRecord {
  /** Spent on it so far, over all attempts. */
  readonly seconds: number;
  /** Why its last attempt failed; null where it did not. */
  readonly error: string | null;
  /** What was measured on which text; null before. */
  readonly loss: RecoveredLoss & { readonly on: SweepEvaluation } | null;
}

const Value: z.ZodType<GridValue> = z.union([
  z.number(),
  z.string(),
  z.boolean(),
]);

const Evaluation: z.ZodType<SweepEvaluation> = z.object({
  text: z.string(),
  documents: z.int(),
  model: z.string().nullable(),
});

const Stored = z.object({
  cwd: z.string(),
  base: z.record(z.string(), z.unknown()),
  evaluation: Evaluation.nullable(),
  runs: z.array(
    z.object({ name: z.string(), values: z.record(z.string(), Value) }),
  ),
});

const Record: z.ZodType<RunRecord> = z.object({
  seconds: z.number(),
  error: z.string().nullable(),
  loss: z.object({
    recoveredFromZero: z.number(),
    recoveredFromMean: z.number(),
    ceModel: z.number(),
    ceSae: z.number(),
    on: Evaluation,
  }).nullable(),
});

const NEW_RECORD: RunRecord = { seconds: 0, error: null, loss: null };

/**
 * Makes or continues a sweep; points that it has not had are added to its runs.
 * @throws {Error} If the folder holds something else, or a sweep of other flags.
 */
export async function createSweep(
  folder: string,
  settings: SweepSettings,
  points: readonly GridPoint[],
): Promise<Sweep> {
  const id = await fingerprint({ base: settings.base });
  const before = await claimOutputFolder(folder, "sweep", id);
  const known = before?.["runs"] === undefined
    ? []
    : checkJson(Stored, before, join(folder, "manifest.json")).runs;
  const names = new Set(known.map(({ name }) => name));
  const added = points.filter(({ name }) => !names.has(name));
  const sweep = { ...settings, runs: [...known, ...added] };
  for (const { name, values } of added) {
    const flags = { ...settings.base, ...values };
    const json = JSON.stringify(flags, null, 2) + "\n";
    await writeAtomic(join(folder, `${name}.json`), json);
  }
  await writeManifest(folder, { kind: "sweep", fingerprint: id, ...sweep });
  return { folder, ...sweep };
}

/**
 * Opens a sweep.
 * @throws {Error} If the folder holds none.
 */
export async function openSweep(folder: string): Promise<Sweep> {
  const manifest = await readManifest(folder);
  if (manifest.kind !== "sweep") {
    throw new Error(
      `Cannot open "${folder}": expected the folder of a sweep: got a ${manifest.kind} run`,
    );
  }
  const { cwd, base, evaluation, runs } = checkJson(
    Stored,
    manifest,
    join(folder, "manifest.json"),
  );
  return { folder, cwd, base, evaluation, runs };
}

/** What the sweep knows of a run. */
export function readRecord({ folder }: Sweep, name: string): RunRecord {
  const path = join(folder, `${name}.run.json`);
  if (!existsSync(path)) return NEW_RECORD;
  return checkJson(Record, JSON.parse(Deno.readTextFileSync(path)), path);
}

/** Writes what the sweep knows of a run. */
export async function writeRecord(
  { folder }: Sweep,
  name: string,
  record: RunRecord,
): Promise<void> {
  const text = JSON.stringify(record, null, 2) + "\n";
  await writeAtomic(join(folder, `${name}.run.json`), text);
}

/** Whether a run has its SAE, by its own manifest. */
export async function isTrained(
  { folder }: Sweep,
  name: string,
): Promise<boolean> {
  const run = join(folder, name);
  if (!existsSync(join(run, "manifest.json"))) return false;
  return (await readManifest(run))["done"] === true;
}

/** Whether a run has all that the sweep wants of it. */
export async function isComplete(
  sweep: Sweep,
  name: string,
): Promise<boolean> {
  return await isTrained(sweep, name) &&
    hasLoss(sweep, readRecord(sweep, name));
}

/** Whether the cross-entropies were measured, on the text that the sweep names, or need not be. */
export function hasLoss(
  { evaluation }: Sweep,
  { loss }: RunRecord,
): boolean {
  if (evaluation === null) return true;
  return loss !== null && loss.on.text === evaluation.text &&
    loss.on.documents === evaluation.documents &&
    loss.on.model === evaluation.model;
}
