/**
 * Whether an SAE belongs to a model, asked before anything is computed with both.
 * @module
 */
import { hookPlace, type HookPoint } from "./hook_point.ts";
import { checkpointFingerprint } from "./model_folder.ts";
import type { Olmo2Config } from "./olmo2_config.ts";
import type { ResidualFacts } from "./residuals.ts";
import type { SaeMetadata } from "./sae_config.ts";

/** What is asked of an SAE; a `SaeFile` is one. */
export interface SaeToFit {
  /** What errors call it. */
  readonly name: string;
  /** Size of the stream that it reads. */
  readonly d_model: number;
  /** Its hook point and model. */
  readonly metadata: SaeMetadata;
  /** Where it reads and writes, if that is no place on the residual stream. */
  readonly elsewhere?: string | undefined;
}

/** What is asked of a model; a `ModelFolder` is one. */
export interface ModelToFit {
  /** What errors call it. */
  readonly name: string;
  /** Its sizes. */
  readonly config: Pick<Olmo2Config, "d_model" | "n_layers">;
  /** Tells its weights from others. */
  readonly fingerprint: string;
}

/**
 * Checks that an SAE reads the residual stream of a model.
 * Quantization is no reason against it: an SAE serves the model as it is stored and as it is rounded.
 * @param options.anyModel Whether the model may be another one of the same sizes, such as a tuned copy.
 * @returns The SAE's hook point, which the model has.
 * @throws {TypeError} If their d_model differ.
 * @throws {RangeError} If the model has no such layer, or the SAE is of other weights or no residual stream.
 * @throws {Error} If the SAE does not tell its hook point.
 */
export function checkSaeFits(
  sae: SaeToFit,
  model: ModelToFit,
  options: { readonly anyModel?: boolean } = {},
): HookPoint {
  const what = `Cannot use SAE "${sae.name}" with model "${model.name}"`;
  const { d_model, n_layers } = model.config;
  const { hookPoint, modelName, modelFingerprint } = sae.metadata;
  if (sae.d_model !== d_model) {
    throw new TypeError(
      `${what}: expected d_model ${d_model}: got ${sae.d_model}: give the model that it was trained on`,
    );
  }
  if (sae.elsewhere !== undefined) {
    throw new RangeError(
      `${what}: expected an SAE of the residual stream: got one of ${sae.elsewhere}`,
    );
  }
  if (hookPoint === undefined) {
    throw new Error(
      `${what}: expected a hook point in its config: got none: name its layer with --layer`,
    );
  }
  if (hookPlace(hookPoint).layer >= n_layers) {
    throw new RangeError(
      `${what}: expected a layer from 0 to ${
        n_layers - 1
      }: got ${hookPoint}: give the model that it was trained on, or the layer with --layer if the SAE does not tell it`,
    );
  }
  if (
    modelFingerprint !== undefined && !options.anyModel &&
    checkpointFingerprint(modelFingerprint) !== model.fingerprint
  ) {
    throw new RangeError(
      `${what}: expected the weights of ${
        modelName ?? "its model"
      } (${modelFingerprint}): got ${model.fingerprint}: give that model, or --any-model if this is a tuned copy`,
    );
  }
  return hookPoint;
}

/** What is asked of residuals; an open `ResidualFolder` is such. */
export interface ResidualsToFit {
  /** What errors call them. */
  readonly name: string;
  /** Their hook point and model, as far as they tell them. */
  readonly manifest: Pick<ResidualFacts, "model" | "hookPoint">;
}

/**
 * Checks that an SAE reads vectors like those of a residual folder; those of a quantized model are not like those of the
 * checkpoint.
 * @param options.anyModel Whether they may be of another model of the same sizes.
 * @throws {TypeError} If their d_model differ.
 * @throws {RangeError} If they are of another hook point or other weights.
 */
export function checkResidualsFit(
  sae: SaeToFit,
  residuals: ResidualsToFit,
  options: { readonly anyModel?: boolean } = {},
): void {
  const what =
    `Cannot use SAE "${sae.name}" with residuals "${residuals.name}"`;
  const fix = "collect residuals where it was trained";
  const { model, hookPoint } = residuals.manifest;
  const { hookPoint: trainedAt, modelFingerprint } = sae.metadata;
  if (sae.d_model !== model.d_model) {
    throw new TypeError(
      `${what}: expected d_model ${model.d_model}: got ${sae.d_model}: ${fix}`,
    );
  }
  if (
    trainedAt !== undefined && hookPoint !== undefined &&
    trainedAt !== hookPoint
  ) {
    throw new RangeError(
      `${what}: expected an SAE of ${hookPoint}: got one of ${trainedAt}: ${fix}`,
    );
  }
  if (
    modelFingerprint !== undefined && model.fingerprint !== undefined &&
    modelFingerprint !== model.fingerprint && !options.anyModel
  ) {
    throw new RangeError(
      `${what}: expected an SAE of ${model.name} (${model.fingerprint}): got one of ${modelFingerprint}: ${fix}, or give --any-model if one is a tuned copy`,
    );
  }
}
