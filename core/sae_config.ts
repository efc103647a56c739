/**
 * What is known of an SAE beside its weights. The configs of all layouts are read in `sae_layouts/`.
 * @module
 */
import { z } from "zod";
import { type HookPoint, isHookPoint } from "./hook_point.ts";

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
  /** The file that it was converted from: its layout, and the SHA-256 of its weights in hexadecimal. */
  readonly convertedFrom?: { readonly layout: string; readonly sha256: string };
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

/** What this project writes into the config of a layout, under `open_concept_steering`, beside what the layout has. */
export const OurMetadata = z.object({
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
  convertedFrom: z.object({
    layout: z.string(),
    sha256: z.string().regex(/^[0-9a-f]{64}$/, "expected 64 hex digits"),
  }).exactOptional(),
  // SAELens has places of its own for these.
  modelName: z.string().exactOptional(),
  contextLength: z.int().min(1).exactOptional(),
}).transform(({ formatVersion: _, ...ours }) => ours);
