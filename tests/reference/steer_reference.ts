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
  /** Acts only on tokens with n of at least this; 0 when absent. */
  readonly after?: number;
  /** Tokens over which the effect fades; never when absent. */
  readonly decay?: number;
}

/** The activation of an entry's feature on one token. */
export function activationReference(
  x: ArrayLike<number>,
  { W_enc, b_enc, linear, threshold = 0 }: SteerEntry,
): number {
  let pre = b_enc;
  for (let j = 0; j < x.length; j++) pre += W_enc[j]! * x[j]!;
  return linear || pre > threshold ? pre : 0;
}

/** How much of an entry's effect a token gets that has n tokens of the reply up to and with itself. */
export function factorReference(
  n: number,
  { after = 0, decay = Infinity }: Pick<SteerEntry, "after" | "decay">,
): number {
  if (n < after) return 0;
  return Math.min(1, Math.max(0, 1 - (n - after) / decay));
}

/** x + Σ_e f_e · change_e · W_dec_e for one token; all activations are those of the unchanged x. */
export function steerReference(
  x: ArrayLike<number>,
  entries: readonly SteerEntry[],
  n = 0,
): Float64Array {
  const steered = Float64Array.from(x);
  for (const entry of entries) {
    const { W_dec, mode, value } = entry;
    const act = activationReference(x, entry);
    const wanted = {
      clamp: value,
      add: act + value,
      min: Math.max(act, value),
      scale: act * value,
      watch: act,
    }[mode];
    const change = factorReference(n, entry) * (wanted - act);
    for (let j = 0; j < x.length; j++) steered[j]! += change * W_dec[j]!;
  }
  return steered;
}
