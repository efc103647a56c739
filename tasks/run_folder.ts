/**
 * What a training run left in its folder, for reports: read as far as it is
 * there, since a run may be under way or come from an older version.
 * @module
 */
import { basename, join } from "node:path";
import { directory } from "../core/files.ts";
import { Safetensors } from "../core/safetensors.ts";
import { DENSITY_FILE } from "../core/sae_save.ts";
import { type Folder, readJson } from "../core/source.ts";
import type { MetricsLine } from "../train/metrics_line.ts";
import { METRICS_FILE, readMetricsFile } from "./metrics_log.ts";

/** A run, as it is reported. */
export interface RunFolder {
  /** What the run is called: the last part of its path. */
  readonly name: string;
  /** In the order of steps. */
  readonly lines: readonly MetricsLine[];
  /** Lines of the metrics that could not be read. */
  readonly nDamaged: number;
  /** The settings by their names; {} where there are none. */
  readonly settings: Readonly<Record<string, unknown>>;
  /** Whether the run reached its end; undefined where nothing says so. */
  readonly isDone: boolean | undefined;
  /** Measured on vectors that were held out, by their names; {} where nothing was. */
  readonly heldOut: Readonly<Record<string, unknown>>;
  /** log10 of the share of tokens on which each feature fires; undefined where it was not measured. */
  readonly logDensity: Float32Array | undefined;
}

/**
 * Reads the folder of a run.
 * @throws {Error} If it is no folder of a run, holds no metrics, or a file of it is damaged.
 */
export async function readRunFolder(path: string): Promise<RunFolder> {
  const folder = directory(path);
  if (!await folder.has(METRICS_FILE)) {
    throw new Error(
      `Cannot report on "${path}": expected ${METRICS_FILE}, as train writes it: got none: give the folder of a training run`,
    );
  }
  const { lines, nDamaged } = readMetricsFile(join(path, METRICS_FILE));
  if (lines.length === 0) {
    throw new Error(
      `Cannot report on "${path}": expected at least one step in ${METRICS_FILE}: got ${nDamaged} damaged lines: wait until the run has begun`,
    );
  }
  const manifest = await jsonOf(folder, "manifest.json");
  return {
    name: basename(path),
    lines: lines.toSorted((a, b) => a.step - b.step),
    nDamaged,
    settings: await settingsOf(folder),
    isDone: "kind" in manifest ? manifest["done"] === true : undefined,
    heldOut: objectOf(manifest["heldOut"]),
    logDensity: await logDensityOf(folder),
  };
}

/** The flags as `train` resolved them, else the recipe in the SAE's own file. */
async function settingsOf(folder: Folder): Promise<Record<string, unknown>> {
  if (await folder.has("train.json")) return await jsonOf(folder, "train.json");
  const { metadata } = await jsonOf(folder, "cfg.json");
  const own = objectOf(objectOf(metadata)["open_concept_steering"]);
  return objectOf(own["recipe"]);
}

async function logDensityOf(
  folder: Folder,
): Promise<Float32Array | undefined> {
  if (!await folder.has(DENSITY_FILE)) return undefined;
  const file = await Safetensors.open(await folder.open(DENSITY_FILE));
  return await file.floats("sparsity");
}

/** The object in a JSON file; {} where there is no such file. */
async function jsonOf(
  folder: Folder,
  file: string,
): Promise<Record<string, unknown>> {
  if (!await folder.has(file)) return {};
  return objectOf(await readJson(await folder.open(file)));
}

function objectOf(value: unknown): Record<string, unknown> {
  const isObject = typeof value === "object" && value !== null &&
    !Array.isArray(value);
  return isObject ? value as Record<string, unknown> : {};
}
