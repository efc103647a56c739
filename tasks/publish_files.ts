/**
 * What is published of an SAE's folder, checked before anything is sent.
 * @module
 */
import { basename, join } from "node:path";
import { z } from "zod";
import { checkJson } from "../core/check_json.ts";
import { directory } from "../core/files.ts";
import type { SaeFile } from "../core/sae_file.ts";
import {
  DENSITY_FILE,
  FEATURE_MAX_FILE,
  WEIGHTS_FILE,
} from "../core/sae_save.ts";
import { SCALER_FILE } from "../core/sae_layouts/saelens.ts";
import { readJson } from "../core/source.ts";
import {
  FEATURES_FILE,
  loadFeatureIndex,
  saeFingerprint,
} from "../steer/feature_index_file.ts";
import { LABELS_FILE, readLabels } from "../steer/labels.ts";
import { checkpointFingerprint } from "../core/model_folder.ts";
import { FileBlob } from "./file_blob.ts";
import { METRICS_FILE } from "./metrics_log.ts";
import type { CardFacts, HeldOutMetrics } from "./model_card.ts";

/** Files that are published where they are there; what else a run leaves stays. */
const FILES = [
  "cfg.json",
  WEIGHTS_FILE,
  FEATURE_MAX_FILE,
  DENSITY_FILE,
  LABELS_FILE,
  FEATURES_FILE,
  METRICS_FILE,
];
const MANIFEST_FILE = "manifest.json";
/** Weights that are checked at once. */
const CHECK_BYTES = 64 * 2 ** 20;
/** log10 of a density that stands for none. */
const DEAD_LOG_DENSITY = -9.5;

const share = z.number().min(0).max(1);
const Manifest = z.object({
  kind: z.string(),
  done: z.boolean().optional(),
  heldOut: z.object({
    nTokens: z.int().min(1),
    fvu: z.number().min(0),
    L0: z.number().min(0),
    deadShare: share,
  }).optional(),
});

/** What is sent, and what its card tells. */
export interface SaeToPublish {
  /** By name. */
  readonly files: ReadonlyMap<string, FileBlob>;
  readonly facts: Omit<CardFacts, "id" | "folder" | "license">;
}

/**
 * Checks an SAE and chooses its files.
 * @throws {Error} If it has another layout than SAELens's, tells no hook point, its run is not complete, or a file of it
 * is damaged or of another SAE.
 */
export async function readSaeToPublish(
  sae: SaeFile,
  { signal, onChecked }: {
    signal: AbortSignal;
    /** Told how many features' weights are checked. */
    onChecked: (nFeatures: number) => void;
  },
): Promise<SaeToPublish> {
  const what = `Cannot publish "${sae.name}"`;
  const { hookPoint } = sae.metadata;
  if (sae.layout !== "saelens") {
    throw new Error(
      `${what}: expected an SAE as SAELens has it: got one as ${sae.layout} has it: convert it first`,
    );
  }
  const weightsFile = basename(sae.weightsFile.name);
  if (weightsFile !== WEIGHTS_FILE) {
    throw new Error(
      `${what}: expected the weights in ${WEIGHTS_FILE}: got ${weightsFile}: convert it first`,
    );
  }
  if (hookPoint === undefined) {
    throw new Error(
      `${what}: expected a hook point in cfg.json: got none: nobody could use it`,
    );
  }
  if (await directory(sae.name).has(SCALER_FILE)) {
    throw new Error(
      `${what}: expected weights that take activations as they are: got ${SCALER_FILE} beside them, which SAELens does not read: convert it first`,
    );
  }
  const heldOut = await readRun(sae);
  const labels = await readLabels(directory(sae.name), sae.d_sae);
  const logDensity = await sae.logDensity();
  await sae.featureMax();
  await checkIndex(sae);
  await checkWeights(sae, signal, onChecked);
  const folder = directory(sae.name);
  const files = new Map<string, FileBlob>();
  for (const name of FILES) {
    if (!await folder.has(name)) continue;
    files.set(name, await FileBlob.open(join(sae.name, name)));
  }
  const { d_model, d_sae, metadata } = sae;
  return {
    files,
    facts: {
      ...{ d_model, d_sae, hookPoint, metadata, heldOut },
      nDead: logDensity?.filter((log) => log < DEAD_LOG_DENSITY).length,
      nLabels: labels.size,
      files: [...files.keys()],
    },
  };
}

/** What the run measured, where a manifest tells of one. */
async function readRun(sae: SaeFile): Promise<HeldOutMetrics | undefined> {
  const folder = directory(sae.name);
  if (!await folder.has(MANIFEST_FILE)) return undefined;
  const source = await folder.open(MANIFEST_FILE);
  const manifest = checkJson(Manifest, await readJson(source), source.name);
  if (manifest.kind === "sae" && manifest.done !== true) {
    throw new Error(
      `Cannot publish "${sae.name}": expected a complete training run: got one that has not ended: run train again with the same flags`,
    );
  }
  return manifest.heldOut;
}

/** Checks that an index beside the SAE is its own. */
async function checkIndex(sae: SaeFile): Promise<void> {
  const folder = directory(sae.name);
  const { modelFingerprint } = sae.metadata;
  if (modelFingerprint === undefined || !await folder.has(FEATURES_FILE)) {
    return;
  }
  await loadFeatureIndex(folder, {
    modelFingerprint: checkpointFingerprint(modelFingerprint),
    saeFingerprint: await saeFingerprint(sae),
    d_sae: sae.d_sae,
  });
}

/** Reads all weights once, which refuses values that are not finite. */
async function checkWeights(
  sae: SaeFile,
  signal: AbortSignal,
  onChecked: (nFeatures: number) => void,
): Promise<void> {
  const { d_model, d_sae } = sae;
  await Promise.all([sae.b_enc(), sae.b_dec(), sae.threshold()]);
  const step = Math.max(1, Math.floor(CHECK_BYTES / (4 * d_model)));
  for (let start = 0; start < d_sae; start += step) {
    signal.throwIfAborted();
    const end = Math.min(start + step, d_sae);
    await sae.rowsOfEncoder(start, end);
    await sae.rowsOfDecoder(start, end);
    onChecked(end);
  }
}
