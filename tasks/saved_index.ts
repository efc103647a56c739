/**
 * The feature index that was saved of an SAE.
 * @module
 */
import { directory } from "../core/files.ts";
import {
  checkpointFingerprint,
  type ModelFolder,
} from "../core/model_folder.ts";
import type { SaeFile } from "../core/sae_file.ts";
import type { FeatureIndex } from "../steer/feature_index.ts";
import {
  FEATURES_FILE,
  loadFeatureIndex,
  saeFingerprint,
} from "../steer/feature_index_file.ts";
import { userPath } from "./cli.ts";

/**
 * The index that `--index` names, else that of the SAE's folder; undefined where there is neither.
 * @throws {Error} As `loadFeatureIndex`.
 */
export async function openSavedIndex(
  sae: SaeFile,
  model: ModelFolder,
  typed: string | undefined,
): Promise<FeatureIndex | undefined> {
  const of = {
    modelFingerprint: model.fingerprint,
    saeFingerprint: await saeFingerprint(sae),
    d_sae: sae.d_sae,
  };
  if (typed !== undefined) {
    return await loadFeatureIndex(directory(userPath(typed)), of);
  }
  const { beside } = sae;
  if (!await beside?.has(FEATURES_FILE)) return undefined;
  // The SAE's own model made it, even if another of the same sizes is in use.
  const { modelFingerprint: own = of.modelFingerprint } = sae.metadata;
  const modelFingerprint = checkpointFingerprint(own);
  return await loadFeatureIndex(beside!, { ...of, modelFingerprint });
}
