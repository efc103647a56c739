/**
 * What the runs of a sweep came to: rows, a table, JSON and CSV.
 * @module
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { checkJson } from "../core/check_json.ts";
import { readManifest } from "../core/files.ts";
import { formatCount, formatDuration, formatTable } from "./format.ts";
import {
  isComplete,
  readRecord,
  type RecoveredLoss,
  type Sweep,
} from "./sweep_folder.ts";
import type { GridValue } from "./sweep_grid.ts";

/** What a run came to; null where it is not known. */
export interface SweepResult {
  readonly name: string;
  /** By flag. */
  readonly values: Readonly<Record<string, GridValue>>;
  readonly status: "complete" | "failed" | "unfinished";
  /** Why it failed. */
  readonly error: string | null;
  /** Variance unexplained: of what was held out, else of the last batch. */
  readonly fvu: number | null;
  /** Features a vector: of what was held out, else of the last batch. */
  readonly L0: number | null;
  /** Share of features that fire on nothing of what was held out. */
  readonly deadShare: number | null;
  readonly loss: RecoveredLoss | null;
  /** Steps done, as far as metrics tell. */
  readonly steps: number | null;
  /** Spent on it, over all attempts. */
  readonly seconds: number;
}

/** What a run's manifest and metrics say; other fields are left alone. */
const HeldOut = z.object({
  fvu: z.number(),
  L0: z.number(),
  deadShare: z.number(),
});
const Metrics = z.object({
  step: z.number(),
  fvu: z.number().nullish(),
  L0: z.number().nullish(),
});

/** The results of all runs, in their order. */
export async function readResults(sweep: Sweep): Promise<SweepResult[]> {
  return await Promise.all(
    sweep.runs.map(async ({ name, values }) => {
      const { seconds, error, loss } = readRecord(sweep, name);
      const complete = await isComplete(sweep, name);
      const status = complete
        ? "complete"
        : error === null
        ? "unfinished"
        : "failed";
      const last = lastMetrics(join(sweep.folder, name, "metrics.jsonl"));
      const heldOut = await readHeldOut(join(sweep.folder, name));
      return {
        name,
        values,
        status,
        error: complete ? null : error,
        fvu: heldOut?.fvu ?? last?.fvu ?? null,
        L0: heldOut?.L0 ?? last?.L0 ?? null,
        deadShare: heldOut?.deadShare ?? null,
        loss,
        steps: last ? last.step + 1 : null,
        seconds,
      } as const;
    }),
  );
}

async function readHeldOut(
  folder: string,
): Promise<z.infer<typeof HeldOut> | undefined> {
  if (!existsSync(join(folder, "manifest.json"))) return undefined;
  const heldOut = (await readManifest(folder))["heldOut"];
  if (heldOut === undefined) return undefined;
  return checkJson(HeldOut, heldOut, join(folder, "manifest.json"));
}

function lastMetrics(path: string): z.infer<typeof Metrics> | undefined {
  if (!existsSync(path)) return undefined;
  // A run that was killed may have left part of a line.
  for (const line of Deno.readTextFileSync(path).split("\n").reverse()) {
    try {
      return checkJson(Metrics, JSON.parse(line), path);
    } catch {
      continue;
    }
  }
  return undefined;
}

/** The flags that vary, in the order they are met. */
export function axesOf(results: readonly SweepResult[]): string[] {
  return [...new Set(results.flatMap(({ values }) => Object.keys(values)))];
}

/** Headings and cells of the results, for people; cross-entropies only where there are any. */
export function resultCells(
  results: readonly SweepResult[],
): { heading: string[]; rows: string[][] } {
  const axes = axesOf(results);
  const hasLoss = results.some(({ loss }) => loss !== null);
  const isComplete = results.every(({ status }) => status === "complete");
  const cell = (value: number | null, digits: number, scale = 1): string =>
    value === null ? "" : (scale * value).toFixed(digits);
  return {
    heading: [
      ...axes,
      "FVU",
      "L0",
      "dead %",
      ...(hasLoss ? ["CE recovered"] : []),
      "steps",
      "time",
      ...(isComplete ? [] : ["status"]),
    ],
    rows: results.map((result) => [
      ...axes.map((axis) => String(result.values[axis] ?? "")),
      cell(result.fvu, 4),
      cell(result.L0, 2),
      cell(result.deadShare, 2, 100),
      ...(hasLoss ? [cell(result.loss?.recoveredFromZero ?? null, 4)] : []),
      result.steps === null ? "" : formatCount(result.steps),
      formatDuration(1000 * result.seconds),
      ...(isComplete ? [] : [result.status]),
    ]),
  };
}

/** The results as a table for the terminal. */
export function describeResults(results: readonly SweepResult[]): string {
  const { heading, rows } = resultCells(results);
  return formatTable(heading, rows);
}

/** The results as CSV (RFC 4180), with full digits; empty where a value is not known. */
export function resultsCsv(results: readonly SweepResult[]): string {
  const axes = axesOf(results);
  const heading = [
    "name",
    ...axes,
    "status",
    "fvu",
    "L0",
    "dead_share",
    "ce_recovered_from_zero",
    "ce_recovered_from_mean",
    "steps",
    "seconds",
    "error",
  ];
  const rows = results.map((result) => [
    result.name,
    ...axes.map((axis) => result.values[axis]),
    result.status,
    result.fvu,
    result.L0,
    result.deadShare,
    result.loss?.recoveredFromZero,
    result.loss?.recoveredFromMean,
    result.steps,
    result.seconds,
    result.error,
  ]);
  return [heading, ...rows]
    .map((row) => row.map(csvCell).join(",") + "\r\n")
    .join("");
}

function csvCell(value: GridValue | null | undefined): string {
  const text = String(value ?? "");
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
