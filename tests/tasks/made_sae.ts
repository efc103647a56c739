/**
 * SAEs for tests of the tasks: made, not trained.
 * @module
 */
import { join } from "node:path";
import { directory, writeAtomic } from "../../core/files.ts";
import { openModelFolder } from "../../core/model_folder.ts";
import { Rng } from "../../core/rng.ts";
import {
  type SaeToSave,
  saveFeatureMeasurements,
  saveSae,
  type WriteFile,
} from "../../core/sae_file.ts";
import { type FeatureLabels, writeLabels } from "../../steer/labels.ts";

/** The embedded model. */
export const MODEL =
  new URL("../../models/tiny-olmo2", import.meta.url).pathname;

/** What of an SAE a test wants to be otherwise. */
export interface MadeSae {
  /** Size of the stream; that of the embedded model when absent. */
  readonly d_model?: number;
  /** Fields of its metadata. */
  readonly metadata?: Partial<SaeToSave["metadata"]>;
  /** Whether feature_max is known: 20 for all; true when absent. */
  readonly isMeasured?: boolean;
  /** Names of features. */
  readonly labels?: FeatureLabels;
}

/** Number of features. */
export const D_SAE = 64;

/**
 * Writes an SAE of 64 features for the embedded model: directions are random and of
 * norm 1, W_enc = W_dec, and biases are negative, so that few features fire.
 */
export async function makeSae(
  folder: string,
  options: MadeSae = {},
): Promise<void> {
  const { d_model = 192, metadata = {}, isMeasured = true, labels } = options;
  const { fingerprint } = await openModelFolder(directory(MODEL));
  const write: WriteFile = (file, content) =>
    writeAtomic(join(folder, file), content);
  const rng = new Rng(1);
  const W_dec = new Float32Array(D_SAE * d_model);
  for (let i = 0; i < D_SAE; i++) {
    const row = Array.from({ length: d_model }, () => rng.normal());
    const norm = Math.hypot(...row);
    W_dec.set(row.map((value) => value / norm), i * d_model);
  }
  await saveSae(write, {
    weights: {
      d_model,
      d_sae: D_SAE,
      W_enc: W_dec.slice(),
      b_enc: new Float32Array(D_SAE).fill(-4),
      W_dec,
      b_dec: new Float32Array(d_model),
    },
    metadata: {
      architecture: "relu",
      hookPoint: "resid_post[3]",
      modelName: "tiny-olmo2",
      modelFingerprint: fingerprint,
      inputScale: 1,
      ...metadata,
    },
  });
  if (isMeasured) {
    await saveFeatureMeasurements(write, {
      featureMax: new Float32Array(D_SAE).fill(20),
      density: new Float32Array(D_SAE).fill(0.05),
    });
  }
  if (labels) await writeLabels(write, labels);
}
