/**
 * Steering in float64.
 * @module
 */
import type { STEER_MODES } from "../../kernels/steer.ts";

/** One feature that acts on a token. */
export interface SteerEntry {
  /** `[d_model]` */
  readonly W_enc: ArrayLike<number>;
  /** `[d_model]` */
  readonly W_dec: ArrayLike<number>;
  readonly b_enc: number;
  readonly mode: keyof typeof STEER_MODES;
  readonly value: number;
  /** Takes the activation as it is, without threshold or relu. */
  readonly linear: boolean;
  /** What an activation must exceed; 0 when absent. */
  readonly threshold?: number;
}

/** x + Σ_e delta_e · W_dec_e for one token; all activations are those of the unchanged x. */
export function steerReference(
  x: ArrayLike<number>,
  entries: readonly SteerEntry[],
): Float64Array {
  const steered = Float64Array.from(x);
  for (const entry of entries) {
    const { W_enc, W_dec, b_enc, mode, value, linear, threshold = 0 } = entry;
    let pre = b_enc;
    for (let j = 0; j < x.length; j++) pre += W_enc[j]! * x[j]!;
    const act = linear || pre > threshold ? pre : 0;
    const wanted = {
      clamp: value,
      add: act + value,
      min: Math.max(act, value),
      scale: act * value,
    }[mode];
    for (let j = 0; j < x.length; j++) {
      steered[j]! += (wanted - act) * W_dec[j]!;
    }
  }
  return steered;
}
