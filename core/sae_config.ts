/**
 * The JSON beside the weights of an SAE, in the layouts that are read.
 * Source: SAELens 6, `SAEConfig.to_dict`; open-concept-steering, `sae_config.json`.
 * @module
 */
import { z } from "zod";
import { checkJson } from "./check_json.ts";
import { hookPlace, type HookPoint, isHookPoint } from "./hook_point.ts";

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

/** The layouts that are told apart by the name of their config. */
export type SaeLayout = "saelens" | "open-concept-steering";

/** A config, checked. */
export interface SaeConfig {
  /** Which layout it is. */
  readonly layout: SaeLayout;
  /** Size of the residual stream. */
  readonly d_model: number;
  /** Number of features. */
  readonly d_sae: number;
  /** What else it tells. */
  readonly metadata: SaeMetadata;
}

/** Config file of each layout. */
export const CONFIG_FILES: Readonly<Record<SaeLayout, string>> = {
  "saelens": "cfg.json",
  "open-concept-steering": "sae_config.json",
};

/** Larger than any; keep a false config from claiming memory. */
const MAX_D_MODEL = 2 ** 20;
const MAX_D_SAE = 2 ** 28;
const d_model = z.int().min(1).max(MAX_D_MODEL);
const d_sae = z.int().min(1).max(MAX_D_SAE);

const OurMetadata = z.object({
  formatVersion: z.literal(1),
  hookPoint: z.custom<HookPoint>(
    (text) => typeof text === "string" && isHookPoint(text),
    "expected a hook point",
  ),
  modelFingerprint: z.string().exactOptional(),
  inputScale: z.number().positive(),
  nTokensTrained: z.int().min(0).exactOptional(),
  text: z.string().exactOptional(),
  inferenceThreshold: z.number().positive().exactOptional(),
  recipe: z.record(z.string(), z.unknown()).exactOptional(),
});

const SaeLensConfig = z.object({
  d_in: d_model,
  d_sae,
  architecture: z.enum(["standard", "topk", "jumprelu"]),
  k: z.int().min(1).optional(),
  // Where it is true the ranking depends on the decoder.
  rescale_acts_by_decoder_norm: z.literal(false).optional(),
  // SAELens takes true where it is missing, and then b_dec is subtracted first.
  apply_b_dec_to_input: z.literal(false),
  normalize_activations: z.literal("none"),
  reshape_activations: z.literal("none").optional(),
  metadata: z.object({
    model_name: z.string().nullish(),
    hook_name: z.string().nullish(),
    context_size: z.int().min(1).nullish(),
    open_concept_steering: OurMetadata.optional(),
  }),
}).refine(
  ({ architecture, k = 0, d_sae }) =>
    architecture !== "topk" || (k > 0 && k <= d_sae),
  { path: ["k"], error: "expected 1 to d_sae for topk" },
);

const OpenConceptSteeringConfig = z.object({
  input_size: d_model,
  hidden_size: d_sae,
});

/**
 * Checks a config.
 * @param file What errors call it.
 * @param layer Block that the SAE was trained behind, for the layout that does not tell.
 * @throws {SyntaxError} If it is not of the layout, or of an SAE that cannot be run.
 * @throws {RangeError} If the config tells another layer.
 */
export function parseSaeConfig(
  layout: SaeLayout,
  json: unknown,
  file: string,
  layer?: number,
): SaeConfig {
  const config = layout === "saelens"
    ? fromSaeLens(json, file)
    : fromOpenConceptSteering(json, file, layer);
  const { hookPoint } = config.metadata;
  if (
    layer === undefined || !hookPoint || hookPlace(hookPoint).layer === layer
  ) {
    return config;
  }
  throw new RangeError(
    `Cannot read "${file}": expected layer ${layer} as asked: got an SAE of ${hookPoint}: leave --layer out`,
  );
}

function fromSaeLens(json: unknown, file: string): SaeConfig {
  const config = checkJson(SaeLensConfig, json, file);
  const { metadata } = config;
  const { formatVersion: _, ...ours } = metadata.open_concept_steering ??
    { formatVersion: 1, inputScale: 1, ...residPost(metadata.hook_name ?? "") };
  return {
    layout: "saelens",
    d_model: config.d_in,
    d_sae: config.d_sae,
    metadata: {
      architecture: config.architecture === "standard"
        ? "relu"
        : config.architecture,
      ...(config.architecture === "topk" ? { k: config.k! } : {}),
      ...ours,
      ...(metadata.model_name ? { modelName: metadata.model_name } : {}),
      ...(metadata.context_size
        ? { contextLength: metadata.context_size }
        : {}),
    },
  };
}

/** TransformerLens names the stream after block l `blocks.l.hook_resid_post`. */
function residPost(hookName: string): { hookPoint?: HookPoint } {
  const [, layer] = /^blocks\.(\d+)\.hook_resid_post$/.exec(hookName) ?? [];
  const hookPoint = `resid_post[${layer}]`;
  return isHookPoint(hookPoint) ? { hookPoint } : {};
}

function fromOpenConceptSteering(
  json: unknown,
  file: string,
  layer: number | undefined,
): SaeConfig {
  const config = checkJson(OpenConceptSteeringConfig, json, file);
  return {
    layout: "open-concept-steering",
    d_model: config.input_size,
    d_sae: config.hidden_size,
    metadata: {
      architecture: "relu",
      inputScale: 1,
      ...(layer === undefined
        ? {}
        : { hookPoint: `final_norm@${layer}` as const }),
    },
  };
}

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
