/**
 * sparsify of EleutherAI: a folder named as the hook point, with `cfg.json` and `sae.safetensors`.
 * Source: sparsify, `SparseCoder.encode` and `load_from_disk`.
 * @module
 */
import { z } from "zod";
import { checkJson } from "../check_json.ts";
import { hookPointNamed } from "../hook_point.ts";
import { d_model, d_sae, OurMetadata } from "../sae_config.ts";
import { foldInputBias, type SaeForm, storedVector } from "../sae_form.ts";
import { featureRows } from "../sae_rows.ts";
import type { TensorFile } from "../tensor_file.ts";

const no = (reason: string) =>
  z.literal(false, { error: `expected false, as ${reason}` }).default(false);

const Config = z.object({
  d_in: d_model,
  num_latents: z.int().min(0).default(0),
  expansion_factor: z.int().min(1).default(32),
  k: z.int().min(1).default(32),
  activation: z.literal("topk", {
    error: "expected topk, as the features of groupmax compete in groups",
  }).default("topk"),
  transcode: no("a transcoder writes elsewhere than it reads"),
  skip_connection: no("a skip connection is no feature"),
  signed: no("activations below 0 are not of features"),
  // Only in files that this project wrote.
  open_concept_steering: OurMetadata.optional(),
});

/** A part of a block, such as `layers.10.mlp`. */
const PART = /^(?:\w+\.)*(?:layers|h)\.\d+\.\w/;

/**
 * The SAE of a file.
 * @param folder Name of the folder, which ends in the hook point.
 * @throws {SyntaxError} If the config is damaged, or of an SAE that cannot be run.
 * @throws {TypeError} If a tensor has another shape or dtype than the config tells.
 * @throws {RangeError} If one is missing.
 */
export function sparsifyForm(
  file: TensorFile,
  json: unknown,
  configFile: string,
  folder: string,
): SaeForm {
  const config = checkJson(Config, json, configFile);
  const { d_in: d_model, k } = config;
  const nLatents = config.num_latents || d_model * config.expansion_factor;
  checkJson(
    z.object({ num_latents: d_sae.min(k) }),
    { num_latents: nLatents },
    configFile,
  );
  const place = folder.split(/[/\\]/).at(-1)!;
  const hookPoint = hookPointNamed(place);
  const form: SaeForm = {
    layout: "sparsify",
    d_model,
    d_sae: nLatents,
    ...(!config.open_concept_steering && PART.test(place) &&
      { elsewhere: place }),
    metadata: {
      architecture: "topk",
      k,
      ...(config.open_concept_steering ??
        { inputScale: 1, ...(hookPoint && { hookPoint }) }),
    },
    W_enc: featureRows(
      file,
      "encoder.weight",
      nLatents,
      d_model,
      "[d_sae, d_model]",
    ),
    b_enc: storedVector(file, "encoder.bias", nLatents),
    W_dec: featureRows(file, "W_dec", nLatents, d_model, "[d_sae, d_model]"),
    b_dec: storedVector(file, "b_dec", d_model),
  };
  return foldInputBias(form, form.b_dec);
}
