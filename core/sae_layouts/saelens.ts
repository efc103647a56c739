/**
 * SAELens: `cfg.json` beside `sae_weights.safetensors`. Our own SAEs have this layout too, with more in the metadata.
 * Source: SAELens 6, `SAEConfig.to_dict`, `handle_pre_6_0_config` and the `encode` of each class.
 * @module
 */
import { z } from "zod";
import { checkJson } from "../check_json.ts";
import { hookPointNamed } from "../hook_point.ts";
import {
  d_model,
  d_sae,
  OurMetadata,
  type SaeMetadata,
} from "../sae_config.ts";
import {
  constantVector,
  decoderNorms,
  foldGates,
  foldInputBias,
  foldInputScale,
  type SaeForm,
  scaleFeatures,
  storedVector,
} from "../sae_form.ts";
import { featureRows, floatVector, scalar } from "../sae_rows.ts";
import type { TensorFile } from "../tensor_file.ts";

const Config = z.object({
  d_in: d_model,
  d_sae,
  architecture: z.enum([
    "standard",
    "topk",
    "jumprelu",
    "gated",
    "batchtopk",
    "matryoshka_batchtopk",
  ]),
  k: z.number().min(1).optional(),
  rescale_acts_by_decoder_norm: z.boolean().default(false),
  apply_b_dec_to_input: z.boolean().default(true),
  normalize_activations: z.enum(["none", "expected_average_only_in"], {
    error:
      "expected none or expected_average_only_in, as the others scale every vector by itself, which no fixed weights do",
  }).default("none"),
  reshape_activations: z.literal("none").default("none"),
  metadata: z.object({
    model_name: z.string().nullish(),
    hook_name: z.string().nullish(),
    context_size: z.int().min(1).nullish(),
    open_concept_steering: OurMetadata.optional(),
  }).default({}),
}).refine(
  ({ architecture, k = 0, d_sae }) =>
    architecture !== "topk" || (Number.isInteger(k) && k > 0 && k <= d_sae),
  { path: ["k"], error: "expected 1 to d_sae for topk" },
);

/** A config of SAELens, checked. */
export type SaeLensConfig = z.infer<typeof Config>;

/**
 * Checks a config; one from before version 6 is brought into today's form first.
 * @param file What errors call it.
 * @throws {SyntaxError} If it is none, or of an SAE that cannot be run.
 */
export function parseSaeLensConfig(json: unknown, file: string): SaeLensConfig {
  return checkJson(Config, isOld(json) ? renewed(json, file) : json, file);
}

const Version = z.object({
  sae_lens_version: z.string().nullish(),
  metadata: z.object({ sae_lens_version: z.string().nullish() }).nullish(),
});

/** SAELens takes a config without a version for an old one. */
function isOld(json: unknown): boolean {
  const { data } = Version.safeParse(json);
  const version = data?.sae_lens_version || data?.metadata?.sae_lens_version;
  return !version || Number.parseInt(version) < 6;
}

const OldConfig = z.looseObject({
  architecture: z.string().default("standard"),
  hook_name: z.string().nullish(),
  hook_point: z.string().nullish(),
  model_name: z.string().nullish(),
  context_size: z.int().min(1).nullish(),
  activation_fn: z.enum(["relu", "topk"]).nullish(),
  activation_fn_str: z.enum(["relu", "topk"]).nullish(),
  activation_fn_kwargs: z.object({ k: z.int().optional() }).nullish(),
  normalize_activations: z.union([z.boolean(), z.string()]).nullish(),
  reshape_activations: z.string().nullish(),
});

/** A config of before version 6, in today's form. */
function renewed(json: unknown, file: string): unknown {
  const old = checkJson(OldConfig, json, file);
  const hook_name = old.hook_name ?? old.hook_point ?? "";
  const isTopK = old.architecture === "topk" ||
    (old.activation_fn ?? old.activation_fn_str) === "topk";
  const k = old.activation_fn_kwargs?.k;
  const norm = old.normalize_activations;
  return {
    ...old,
    ...(isTopK && k !== undefined && { architecture: "topk", k }),
    normalize_activations: norm === true
      ? "expected_average_only_in"
      : norm || "none",
    reshape_activations: old.reshape_activations ??
      (hook_name.includes("hook_z") ? "hook_z" : "none"),
    metadata: {
      hook_name,
      model_name: old.model_name,
      context_size: old.context_size,
    },
  };
}

/** What a config tells of its SAE beside the weights. */
export function saeLensMetadata(config: SaeLensConfig): SaeMetadata {
  const { metadata, architecture, k } = config;
  const hookPoint = hookPointNamed(metadata.hook_name ?? "");
  const ours = metadata.open_concept_steering ??
    { inputScale: 1, ...(hookPoint && { hookPoint }) };
  return {
    architecture: architecture === "standard"
      ? "relu"
      : architecture === "topk"
      ? "topk"
      : "jumprelu",
    ...(architecture === "topk" ? { k: k! } : {}),
    ...ours,
    ...(metadata.model_name ? { modelName: metadata.model_name } : {}),
    ...(metadata.context_size ? { contextLength: metadata.context_size } : {}),
  };
}

/** File of the factor that activations were multiplied by in training, of checkpoints that were not folded. */
export const SCALER_FILE = "activation_scaler.json";
const Scaler = z.object({ scaling_factor: z.number().positive() });

/**
 * The SAE of a config and its weights.
 * @param readScaler Reads {@link SCALER_FILE}; asked only where the config needs it.
 * @throws {TypeError} If a tensor has another shape or dtype than the config tells.
 * @throws {RangeError} If one is missing.
 */
export async function saeLensForm(
  file: TensorFile,
  config: SaeLensConfig,
  readScaler: () => Promise<unknown>,
): Promise<SaeForm> {
  await checkFineTuning(file, config.d_sae);
  let form = plainForm(file, config);
  if (config.apply_b_dec_to_input) form = foldInputBias(form, form.b_dec);
  const isTopK = config.architecture.endsWith("topk");
  if (isTopK && config.rescale_acts_by_decoder_norm) {
    form = scaleFeatures(form, decoderNorms(form));
  }
  if (config.architecture.endsWith("batchtopk")) {
    // Its threshold is one of activations as they are rescaled.
    const threshold = await scalar(file, "topk_threshold");
    form = { ...form, threshold: constantVector(config.d_sae, threshold) };
  }
  if (config.normalize_activations === "none") return form;
  const scaler = checkJson(Scaler, await readScaler(), SCALER_FILE);
  return foldInputScale(form, scaler.scaling_factor);
}

/** The SAE without what its config asks for beside the architecture. */
function plainForm(file: TensorFile, config: SaeLensConfig): SaeForm {
  const { d_in: d_model, d_sae, architecture } = config;
  const perFeature = (name: string) => storedVector(file, name, d_sae);
  const isGated = architecture === "gated";
  const metadata = saeLensMetadata(config);
  const { hook_name } = config.metadata;
  const form: SaeForm = {
    layout: "saelens",
    d_model,
    d_sae,
    metadata,
    ...(hook_name && !metadata.hookPoint && { elsewhere: hook_name }),
    W_enc: featureRows(file, "W_enc", d_sae, d_model, "[d_model, d_sae]"),
    b_enc: perFeature(isGated ? "b_mag" : "b_enc"),
    W_dec: featureRows(file, "W_dec", d_sae, d_model, "[d_sae, d_model]"),
    b_dec: storedVector(file, "b_dec", d_model),
    ...(architecture === "jumprelu" && { threshold: perFeature("threshold") }),
  };
  return !isGated ? form : foldGates(form, {
    r_mag: perFeature("r_mag"),
    b_mag: perFeature("b_mag"),
    b_gate: perFeature("b_gate"),
  });
}

/** Old files carry a factor for each activation, which is 1 where it was never tuned. */
async function checkFineTuning(file: TensorFile, d_sae: number): Promise<void> {
  if (!file.tensors.has("scaling_factor")) return;
  const factors = await floatVector(file, "scaling_factor", d_sae);
  const tuned = factors.find((factor) => Math.abs(factor - 1) > 1e-5);
  if (tuned === undefined) return;
  throw new RangeError(
    `Cannot read "${file.name}": expected a scaling_factor of ones: got ${tuned}: fine-tuned scales are not read: multiply the rows of W_dec by them and save again`,
  );
}
