/**
 * open-concept-steering: `sae_config.json` beside `sae_weights.safetensors`, or the `sae_final.pt` and
 * `sae_checkpoint_epoch_n.pt` of its training, which need no config.
 * @module
 */
import { z } from "zod";
import { checkJson } from "../check_json.ts";
import type { HookPoint } from "../hook_point.ts";
import { d_model, d_sae, OurMetadata } from "../sae_config.ts";
import { type SaeForm, storedVector } from "../sae_form.ts";
import { featureRows, matrixSizes } from "../sae_rows.ts";
import type { TensorFile } from "../tensor_file.ts";

const Config = z.object({
  input_size: d_model,
  hidden_size: d_sae,
  // Only in files that this project wrote.
  open_concept_steering: OurMetadata.optional(),
});

/**
 * The SAE of a file.
 * @param json Its config; without one, its sizes are those of the encoder.
 * @param configFile What errors call the config.
 * @param layer Block that it was trained behind, where it is not the one of open-concept-steering's models.
 * @throws {SyntaxError} If the config is damaged.
 * @throws {TypeError} If a tensor has another shape or dtype than the config tells.
 * @throws {RangeError} If one is missing.
 */
export function openConceptSteeringForm(
  file: TensorFile,
  json: unknown,
  configFile: string,
  layer: number | undefined,
): SaeForm {
  const config = json === undefined
    ? undefined
    : checkJson(Config, json, configFile);
  const { d_model, d_sae } = config
    ? { d_model: config.input_size, d_sae: config.hidden_size }
    : matrixSizes(file, "encode.weight", "[d_sae, d_model]");
  return {
    layout: "open-concept-steering",
    d_model,
    d_sae,
    metadata: {
      architecture: "relu",
      ...(config?.open_concept_steering ??
        { inputScale: 1, ...finalNorm(d_model, layer) }),
    },
    W_enc: featureRows(
      file,
      "encode.weight",
      d_sae,
      d_model,
      "[d_sae, d_model]",
    ),
    b_enc: storedVector(file, "encode.bias", d_sae),
    W_dec: featureRows(
      file,
      "decode.weight",
      d_sae,
      d_model,
      "[d_model, d_sae]",
    ),
    b_dec: storedVector(file, "decode.bias", d_model),
  };
}

/**
 * It reads models cut after half of their blocks, whose last hidden state has gone through the final norm: of
 * OLMo-2 7B, which it is made for, `final_norm@15`. The 1B model is half as deep; 13B and 32B, which have the same
 * d_model, are not told apart.
 */
function finalNorm(
  d_model: number,
  layer: number | undefined,
): { hookPoint?: HookPoint } {
  const half = { 2048: 7, 5120: undefined };
  const usual = d_model in half ? half[d_model as keyof typeof half] : 15;
  const block = layer ?? usual;
  return block === undefined ? {} : { hookPoint: `final_norm@${block}` };
}
