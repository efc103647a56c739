/**
 * Where training starts.
 * @module
 */
import { Rng } from "../core/rng.ts";
import type { TrainedArchitecture } from "./recipe.ts";

/** The parameters of an SAE in host memory. */
export interface SaeParams {
  /** f32 `[d_sae, d_model]` */
  readonly W_enc: Float32Array<ArrayBuffer>;
  /** f32 `[d_sae]` */
  readonly b_enc: Float32Array<ArrayBuffer>;
  /** f32 `[d_sae, d_model]` */
  readonly W_dec: Float32Array<ArrayBuffer>;
  /** f32 `[d_model]` */
  readonly b_dec: Float32Array<ArrayBuffer>;
  /** f32 `[d_sae]`: logarithms of the thresholds; of jumprelu only. */
  readonly log_threshold?: Float32Array<ArrayBuffer>;
}

/** Norm of the encoder's and decoder's rows at the start. */
const ROW_NORM = 0.1;
/**
 * Norm of jumprelu's encoder rows at the start. Adam moves the logarithm of a threshold by at most lr a step, so
 * thresholds have to begin where pre-activations, of a deviation as large as this norm, are going to be.
 */
const JUMPRELU_ENCODER_NORM = 1;

/** Norm of the encoder's rows at the start. */
export function encoderNorm(architecture: TrainedArchitecture): number {
  return architecture === "jumprelu" ? JUMPRELU_ENCODER_NORM : ROW_NORM;
}

/**
 * Decoder rows of norm 0.1 in random directions, W_enc = W_dec (of jumprelu 10 times that), b_dec = mean,
 * b_enc = −W_enc·mean: features then see centered data, which keeps them alive.
 * @param mean Mean input, or their geometric median, scaled as the SAE sees it, `[d_model]`.
 * @param initThreshold Thresholds of jumprelu.
 * Source: Anthropic, April 2024 update, "Training SAEs"; the mean as in "Towards Monosemanticity".
 */
export function initSae(
  mean: Float32Array | Float64Array,
  d_sae: number,
  seed: number,
  architecture: TrainedArchitecture = "relu",
  initThreshold = 1,
): SaeParams {
  const d_model = mean.length;
  const rng = new Rng(seed).fork("init");
  const W_enc = new Float32Array(d_sae * d_model);
  const W_dec = new Float32Array(d_sae * d_model);
  const b_enc = new Float32Array(d_sae);
  const encoderFactor = encoderNorm(architecture) / ROW_NORM;
  const direction = new Float64Array(d_model);
  for (let i = 0; i < d_sae; i++) {
    let squares = 0;
    for (let j = 0; j < d_model; j++) {
      direction[j] = rng.normal();
      squares += direction[j]! ** 2;
    }
    const scale = ROW_NORM / Math.sqrt(squares);
    let dot = 0;
    for (let j = 0; j < d_model; j++) {
      W_dec[i * d_model + j] = direction[j]! * scale;
      const weight = direction[j]! * scale * encoderFactor;
      W_enc[i * d_model + j] = weight;
      dot += weight * mean[j]!;
    }
    b_enc[i] = -dot;
  }
  return {
    W_enc,
    b_enc,
    W_dec,
    b_dec: Float32Array.from(mean),
    ...(architecture === "jumprelu" && {
      log_threshold: new Float32Array(d_sae).fill(Math.log(initThreshold)),
    }),
  };
}
