/**
 * What exports are made of: an SAE, its model, its index and its labels, checked against each other.
 * @module
 */
import type { HookPoint } from "../core/hook_point.ts";
import type { ModelFolder } from "../core/model_folder.ts";
import type { SaeFile } from "../core/sae_file.ts";
import { checkSaeFits } from "../core/sae_fit.ts";
import type { FeatureIndex } from "../steer/feature_index.ts";
import { type FeatureLabels, readLabels } from "../steer/labels.ts";
import { openModel, openSae } from "./cli.ts";
import { openSavedIndex } from "./saved_index.ts";

/** Flags that say what they are. */
export interface ExportSourceFlags {
  readonly sae: string | undefined;
  readonly model: string | undefined;
  readonly index: string | undefined;
  readonly layer: number | undefined;
  readonly any_model: boolean;
}

/** Files of one SAE. */
export interface ExportSources {
  readonly sae: SaeFile;
  readonly model: ModelFolder;
  readonly hookPoint: HookPoint;
  readonly index: FeatureIndex;
  readonly labels: FeatureLabels;
}

/**
 * Opens them.
 * @throws {Error} If there is no index, or what is opened does not belong together.
 */
export async function openExportSources(
  flags: ExportSourceFlags,
): Promise<ExportSources> {
  const sae = await openSae(flags.sae, flags.layer);
  const model = await openModel(flags.model);
  const hookPoint = checkSaeFits(sae, model, { anyModel: flags.any_model });
  const index = await openSavedIndex(sae, model, flags.index);
  if (!index) {
    throw new Error(
      `Cannot export features of "${sae.name}": expected an index of them: got none: make one with find --out, and name it with --index`,
    );
  }
  const labels = await readLabels(sae.beside, sae.d_sae);
  return { sae, model, hookPoint, index, labels };
}
