/**
 * What is known of an SAE beside its weights, and the config that ours are written with. Those of all layouts are
 * read in `sae_layouts/`.
 * Source: SAELens 6, `SAEConfig.to_dict`.
 * @module
 */
import { z } from "zod";
import { hookPlace, type HookPoint } from "./hook_point.ts";

/**
 * Functions from pre-activations to activations: `relu` keeps what is above 0, `topk` the k largest of those with all
 * ties, `jumprelu` what is above a threshold of each feature.
 */
export type SaeArchitecture = "relu" | "topk" | "jumprelu";

/** What is known of an SAE beside its weights. A missing field is one that the file does not tell. */
export interface SaeMetadata {
  /** Function from pre-activations to activations. */
  readonly architecture: SaeArchitecture;
  /** Features that fire on a vector; of topk only. */
  readonly k?: number;
  /**
   * What an activation of topk must exceed where a feature is looked at alone, as steering does: the mean over training
   * of the smallest activation that was kept, in the units of the weights.
   */
  readonly inferenceThreshold?: number;
  /** Where it reads and writes. */
  readonly hookPoint?: HookPoint;
  /** Name of its model. */
  readonly modelName?: string;
  /** Fingerprint of the model's weights and config. */
  readonly modelFingerprint?: string;
  /** Documents were cut at this many tokens. */
  readonly contextLength?: number;
  /** The text it was trained on, as `readDocuments` takes it. */
  readonly text?: string;
  /** Activations were multiplied by this in training; the weights have it folded in and take raw ones. */
  readonly inputScale: number;
  /** Tokens seen in training. */
  readonly nTokensTrained?: number;
  /** The training configuration, as its stage resolved it. */
  readonly recipe?: Readonly<Record<string, unknown>>;
}

/** The layouts of SAE files, by the tools that write them. */
export type SaeLayout =
  | "saelens"
  | "open-concept-steering"
  | "sparsify"
  | "dictionary-learning"
  | "gemma-scope";

/** Config file of each layout that has one. */
export const CONFIG_FILES = {
  "saelens": "cfg.json",
  "open-concept-steering": "sae_config.json",
  "sparsify": "cfg.json",
  "dictionary-learning": "config.json",
} as const;

/** Larger than any; keep a false config from claiming memory. */
const MAX_D_MODEL = 2 ** 20;
const MAX_D_SAE = 2 ** 28;
/** Schema of the size of the residual stream. */
export const d_model = z.int().min(1).max(MAX_D_MODEL);
/** Schema of the number of features. */
export const d_sae = z.int().min(1).max(MAX_D_SAE);

/** The `cfg.json` of an SAE that we write: SAELens 6 reads it, and finds ours in the metadata. */
export function saeLensConfig(
  d_model: number,
  d_sae: number,
  metadata: SaeMetadata & { hookPoint: HookPoint; modelName: string },
): Readonly<Record<string, unknown>> {
  const { modelName, contextLength, architecture, k, ...ours } = metadata;
  const { site, layer } = hookPlace(metadata.hookPoint);
  return {
    architecture: architecture === "relu" ? "standard" : architecture,
    ...(architecture === "topk"
      ? { k, rescale_acts_by_decoder_norm: false }
      : {}),
    d_in: d_model,
    d_sae,
    dtype: "float32",
    device: "cpu",
    apply_b_dec_to_input: false,
    normalize_activations: "none",
    reshape_activations: "none",
    metadata: {
      // Without a version from 6 on, SAELens takes the config for an older form.
      sae_lens_version: "6.0.0",
      sae_lens_training_version: null,
      model_name: modelName,
      // TransformerLens has no name for the final norm read in the middle.
      hook_name: site === "resid_post"
        ? `blocks.${layer}.hook_resid_post`
        : metadata.hookPoint,
      hook_head_index: null,
      context_size: contextLength ?? null,
      prepend_bos: true,
      dataset_path: metadata.text ?? null,
      open_concept_steering: { formatVersion: 1, ...ours },
    },
  };
}
