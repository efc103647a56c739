/**
 * Folds the weights of a trained SAE and writes its files; `sae_file.ts` reads them.
 * @module
 */
import type { HookPoint } from "./hook_point.ts";
import type { SaeArchitecture, SaeMetadata } from "./sae_config.ts";
import { type SaeToWrite, type WriteFile, writeSae } from "./sae_write.ts";
import { vectorTensor } from "./sae_write_rows.ts";
import { safetensorsChunks } from "./safetensors.ts";

export { WEIGHTS_FILE, type WriteFile } from "./sae_write.ts";

/** The weights of an SAE in host memory, all f32. */
export interface SaeWeights {
  /** Size of the residual stream. */
  readonly d_model: number;
  /** Number of features. */
  readonly d_sae: number;
  /** Encoder directions `[d_sae, d_model]`; row i reads feature i. */
  readonly W_enc: Float32Array;
  /** Encoder biases `[d_sae]`. */
  readonly b_enc: Float32Array;
  /** Decoder directions `[d_sae, d_model]`; row i is what feature i writes. */
  readonly W_dec: Float32Array;
  /** Decoder bias `[d_model]`. */
  readonly b_dec: Float32Array;
  /** What an activation must exceed, `[d_sae]`; of jumprelu only. */
  readonly threshold?: Float32Array;
}

/** File of each feature's largest activation. */
export const FEATURE_MAX_FILE = "feature_max.safetensors";
/** File of each feature's firing density. */
export const DENSITY_FILE = "sparsity.safetensors";

/**
 * Folds the input scale and the decoder norms into the weights, in place.
 * What was encode(s·x) and decode(acts)/s becomes encode(x) and decode(acts):
 * W_enc·s, W_dec/s, b_dec/s. Then the norm n of each decoder row moves into its
 * activation: W_enc·n, b_enc·n, W_dec/n. With N the norm before, n = N/s, so that
 * W_enc·N, b_enc·N/s and W_dec/N do both with one rounding. A row of norm 0 stays 0.
 * Thresholds are activations, and become threshold·N/s.
 *
 * With topk the norms stay where they are, N = 1 above: moved into the activations they would change
 * which of them are the k largest.
 * @throws {RangeError} If the scale is not positive and finite.
 */
export function foldSae(
  weights: SaeWeights,
  inputScale: number,
  architecture: SaeArchitecture = "relu",
): void {
  if (!(inputScale > 0 && inputScale < Infinity)) {
    throw new RangeError(
      `Cannot fold the input scale: expected a positive number: got ${inputScale}`,
    );
  }
  const { W_enc, b_enc, W_dec, b_dec, threshold, d_model, d_sae } = weights;
  for (let i = 0; i < d_sae; i++) {
    const encoder = W_enc.subarray(i * d_model, (i + 1) * d_model);
    const decoder = W_dec.subarray(i * d_model, (i + 1) * d_model);
    // A dead row reconstructs nothing; it counts as of norm 1 on the raw side.
    const norm = architecture === "topk" ? 1 : norm2(decoder) || inputScale;
    for (let j = 0; j < d_model; j++) {
      encoder[j]! *= norm;
      decoder[j]! /= norm;
    }
    b_enc[i]! *= norm / inputScale;
    if (threshold) threshold[i]! *= norm / inputScale;
  }
  for (let j = 0; j < d_model; j++) b_dec[j]! /= inputScale;
}

function norm2(row: Float32Array): number {
  return Math.sqrt(row.reduce((sum, value) => sum + value * value, 0));
}

/** What is saved of an SAE. */
export interface SaeToSave {
  /** Weights after `foldSae`. */
  readonly weights: SaeWeights;
  /** What later stages must know of it. */
  readonly metadata: SaeMetadata & {
    readonly hookPoint: HookPoint;
    readonly modelName: string;
  };
}

/** Per-feature measurements, in the units of the folded weights. */
export interface FeatureMeasurements {
  /** Largest activation of each feature, f32 `[d_sae]`. */
  readonly featureMax: Float32Array;
  /** Share of tokens on which each feature fires, `[d_sae]`. */
  readonly density: Float32Array;
}

/**
 * Writes an SAE as SAELens 6 lays it out: the weights first, and the config, which makes it one, last.
 * @throws {TypeError} If an array has another length than d_sae and d_model tell, or jumprelu has no thresholds.
 * @throws {RangeError} If a value is not finite, or a decoder row is not folded to norm 1 (topk: any). Nothing is written then.
 */
export async function saveSae(
  write: WriteFile,
  { weights, metadata }: SaeToSave,
): Promise<void> {
  checkWeights(weights, metadata.architecture);
  // Rows in memory cost nothing to read again, so that small parts are transposed at a time.
  const options = { blockBytes: 16 * 2 ** 20 };
  await writeSae(write, toWrite(weights, metadata), "saelens", options);
}

/** Weights in memory as an SAE to write; its rows are views. */
function toWrite(
  weights: SaeWeights,
  metadata: SaeToSave["metadata"],
): SaeToWrite {
  const { d_model, d_sae } = weights;
  const rowsOf = (W: Float32Array) => (start: number, end: number) =>
    Promise.resolve(W.subarray(start * d_model, end * d_model));
  return {
    d_model,
    d_sae,
    metadata,
    rowsOfEncoder: rowsOf(weights.W_enc),
    rowsOfDecoder: rowsOf(weights.W_dec),
    b_enc: () => Promise.resolve(weights.b_enc),
    b_dec: () => Promise.resolve(weights.b_dec),
    threshold: () => Promise.resolve(weights.threshold),
  };
}

/** Writes the largest activation of each feature, f32 `[d_sae]`, finite and from 0, beside the weights. */
export async function saveFeatureMax(
  write: WriteFile,
  featureMax: Float32Array,
): Promise<void> {
  await write(
    FEATURE_MAX_FILE,
    safetensorsChunks([vectorTensor("feature_max", "F32", featureMax)]),
  );
}

/**
 * Writes what was measured of the features beside the weights.
 * @throws {TypeError} If the arrays differ in length.
 * @throws {RangeError} If a value is not finite or below 0. Nothing is written then.
 */
export async function saveFeatureMeasurements(
  write: WriteFile,
  { featureMax, density }: FeatureMeasurements,
): Promise<void> {
  if (featureMax.length !== density.length) {
    throw new TypeError(
      `Cannot save feature measurements: expected ${featureMax.length} densities: got ${density.length}`,
    );
  }
  for (const [name, values] of Object.entries({ featureMax, density })) {
    const bad = values.findIndex((value) => !(value >= 0 && value < Infinity));
    if (bad < 0) continue;
    throw new RangeError(
      `Cannot save ${name}: expected finite values from 0: got ${
        values[bad]
      } for feature ${bad}`,
    );
  }
  await saveFeatureMax(write, featureMax);
  // As SAELens has it: features that never fire are at -10.
  const logDensity = density.map((share) => Math.log10(share + 1e-10));
  await write(
    DENSITY_FILE,
    safetensorsChunks([vectorTensor("sparsity", "F32", logDensity)]),
  );
}

function checkWeights(
  weights: SaeWeights,
  architecture: SaeArchitecture,
): void {
  const { d_model, d_sae, W_enc, b_enc, W_dec, b_dec, threshold } = weights;
  if ((architecture === "jumprelu") !== (threshold !== undefined)) {
    throw new TypeError(
      `Cannot save the SAE: expected thresholds for jumprelu, and for nothing else: got ${
        threshold ? "some" : "none"
      } for ${architecture}`,
    );
  }
  const lengths = {
    W_enc: d_sae * d_model,
    b_enc: d_sae,
    W_dec: d_sae * d_model,
    b_dec: d_model,
    threshold: d_sae,
  };
  const arrays = {
    W_enc,
    b_enc,
    W_dec,
    b_dec,
    ...(threshold && { threshold }),
  };
  for (const [name, values] of Object.entries(arrays)) {
    const length = lengths[name as keyof typeof lengths];
    if (values.length !== length) {
      throw new TypeError(
        `Cannot save the SAE: expected ${length} values of ${name}: got ${values.length}`,
      );
    }
    const bad = values.findIndex((value) => !Number.isFinite(value));
    if (bad < 0) continue;
    throw new RangeError(
      `Cannot save the SAE: expected finite values of ${name}: got ${
        values[bad]
      } at ${bad}`,
    );
  }
  for (let i = 0; i < d_sae && architecture !== "topk"; i++) {
    const norm = norm2(W_dec.subarray(i * d_model, (i + 1) * d_model));
    if (norm === 0 || Math.abs(norm - 1) < 1e-3) continue;
    throw new RangeError(
      `Cannot save the SAE: expected decoder rows of norm 1 or 0: got ${norm} for feature ${i}: fold it first`,
    );
  }
}
