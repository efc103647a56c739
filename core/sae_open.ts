/**
 * Finds out which tool wrote the files of an SAE, and opens them.
 * @module
 */
import { hookPlace } from "./hook_point.ts";
import { NpzFile } from "./npz_file.ts";
import { CONFIG_FILES, type SaeLayout } from "./sae_config.ts";
import type { SaeForm } from "./sae_form.ts";
import { dictionaryLearningForm } from "./sae_layouts/dictionary_learning.ts";
import { gemmaScopeForm } from "./sae_layouts/gemma_scope.ts";
import { openConceptSteeringForm } from "./sae_layouts/open_concept_steering.ts";
import {
  parseSaeLensConfig,
  saeLensForm,
  SCALER_FILE,
} from "./sae_layouts/saelens.ts";
import { sparsifyForm } from "./sae_layouts/sparsify.ts";
import { DENSITY_FILE, FEATURE_MAX_FILE, WEIGHTS_FILE } from "./sae_save.ts";
import { Safetensors } from "./safetensors.ts";
import { type Folder, missingFile, readJson, type Source } from "./source.ts";
import type { TensorFile } from "./tensor_file.ts";
import { TorchFile } from "./torch_file.ts";

/** How to open an SAE. */
export interface SaeOpenOptions {
  /**
   * Block that the SAE was trained behind, for files that do not tell it. Those of open-concept-steering are then at
   * `final_norm@layer`, others at `resid_post[layer]`.
   */
  readonly layer?: number;
  /** File of the weights, in the folder; the one that the layout has without it. */
  readonly file?: string;
}

/** An open SAE. */
export interface OpenedSae extends SaeForm {
  /** The file of its weights, as it is. */
  readonly weightsFile: Source;
  /** Its folder, where what else lies there tells of it, and of no other file of weights. */
  readonly beside: Folder | undefined;
}

/**
 * Opens an SAE of any layout.
 * @throws {Error} If the folder has none, or lacks a file of it.
 * @throws {SyntaxError} If a file is damaged, or of an SAE that cannot be run.
 * @throws {TypeError} If a tensor has another shape or dtype than the config tells, or a pickle names what it must not.
 * @throws {RangeError} If the weights are damaged, or the SAE is of another layer.
 */
export async function openSaeForm(
  folder: Folder,
  { layer, file }: SaeOpenOptions,
): Promise<OpenedSae> {
  const source = await folder.open(file ?? await findWeights(folder));
  const weights = await openTensors(source);
  const layout = await layoutOf(folder, weights);
  const form = {
    ...await openLayout(layout, folder, weights, layer),
    weightsFile: source,
    beside: await isMain(folder, file) ? folder : undefined,
  };
  const { hookPoint } = form.metadata;
  if (layer === undefined) return form;
  if (!hookPoint && !form.elsewhere) {
    const asked = `resid_post[${layer}]` as const;
    return { ...form, metadata: { ...form.metadata, hookPoint: asked } };
  }
  if (hookPoint && hookPlace(hookPoint).layer === layer) return form;
  throw new RangeError(
    `Cannot read "${source.name}": expected layer ${layer} as asked: got an SAE of ${
      hookPoint ?? form.elsewhere
    }: leave --layer out`,
  );
}

/** Weights by the names that tools give them, in the order of looking. */
const WEIGHTS_FILES = [
  WEIGHTS_FILE,
  "sae.safetensors",
  "sae_final.pt",
  "ae.pt",
  "params.npz",
] as const;

async function findWeights(folder: Folder): Promise<string> {
  for (const file of WEIGHTS_FILES) {
    if (await folder.has(file)) return file;
  }
  for (const config of [CONFIG_FILES.saelens, "sae_config.json"]) {
    if (await folder.has(config)) throw missingFile(folder.name, WEIGHTS_FILE);
  }
  throw new Error(
    `Cannot open an SAE in "${folder.name}": expected ${
      WEIGHTS_FILES.join(", ")
    }: got none of them: name the folder of an SAE, or its file`,
  );
}

/** Whether a file is the one that its folder is opened as, or the only one of weights. */
async function isMain(
  folder: Folder,
  file: string | undefined,
): Promise<boolean> {
  if (file === undefined) return true;
  for (const usual of WEIGHTS_FILES) {
    if (await folder.has(usual)) return file === usual;
  }
  const known = [file, FEATURE_MAX_FILE, DENSITY_FILE];
  return (await folder.list()).every((name) =>
    known.includes(name) || !/\.(?:safetensors|pth?|npz)$/.test(name)
  );
}

async function openTensors(source: Source): Promise<TensorFile> {
  const ending = /\.\w+$/.exec(source.name)?.[0];
  switch (ending) {
    case ".safetensors":
      return await Safetensors.open(source);
    case ".pt":
    case ".pth":
      return await TorchFile.open(source);
    case ".npz":
      return await NpzFile.open(source);
    default:
      throw new Error(
        `Cannot open the SAE "${source.name}": expected a file that ends in .safetensors, .pt or .npz: got ${
          ending ?? "another"
        }: name the file of its weights`,
      );
  }
}

/** Tells layouts apart by the tensors of the weights, and by the config where a tensor is missing. */
async function layoutOf(
  folder: Folder,
  weights: TensorFile,
): Promise<SaeLayout> {
  const has = (name: string): boolean => weights.tensors.has(name);
  if (has("encode.weight")) return "open-concept-steering";
  if (has("w_enc")) return "gemma-scope";
  if (!(weights instanceof TorchFile) && has("decoder.weight")) {
    throw new TypeError(
      `Cannot open the SAE "${weights.name}": expected the names of a tool that is read: got encoder.weight and decoder.weight, as Llama Scope has them: load it with SAELens, and save it with save_model`,
    );
  }
  if (weights instanceof TorchFile) {
    if (has("encoder.weight") || has("W_enc")) return "dictionary-learning";
  } else if (await folder.has(CONFIG_FILES.saelens)) {
    return has("encoder.weight") ? "sparsify" : "saelens";
  } else if (await folder.has(CONFIG_FILES["open-concept-steering"])) {
    return "open-concept-steering";
  } else if (has("W_enc") || has("encoder.weight")) {
    throw missingFile(folder.name, CONFIG_FILES.saelens);
  }
  const names = [...weights.tensors.keys()].slice(0, 5);
  throw new TypeError(
    `Cannot open the SAE "${weights.name}": expected the tensors of an SAE, such as W_enc or encoder.weight: got ${
      names.map((name) => JSON.stringify(name.slice(0, 40))).join(", ") ||
      "none"
    }: name the file of its weights`,
  );
}

async function openLayout(
  layout: SaeLayout,
  folder: Folder,
  weights: TensorFile,
  layer: number | undefined,
): Promise<SaeForm> {
  if (layout === "gemma-scope") return gemmaScopeForm(weights);
  const file = CONFIG_FILES[layout];
  const json = await folder.has(file)
    ? await readJson(await folder.open(file))
    : undefined;
  const configFile = `${folder.name}/${file}`;
  switch (layout) {
    case "open-concept-steering":
      return openConceptSteeringForm(weights, json, configFile, layer);
    case "dictionary-learning":
      return await dictionaryLearningForm(weights, json, configFile);
    case "sparsify":
      return sparsifyForm(weights, json, configFile, folder.name);
    case "saelens":
      return await saeLensForm(
        weights,
        parseSaeLensConfig(json, configFile),
        async () => await readJson(await folder.open(SCALER_FILE)),
      );
  }
}
