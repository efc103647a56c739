/**
 * Gradients by hand of the parts of an SAE's loss, in float64; each adds to what is there.
 * @module
 */
import { rowNorms, type SaeArrays, type SaeSizes } from "./sae_reference.ts";

/** Adds what `dOut` `[B, d_model]`, the gradient of acts·W_dec, gives W_dec, W_enc and b_enc. */
export function backward(
  p: SaeArrays,
  x: ArrayLike<number>,
  { acts, kept, dOut }: {
    acts: Float64Array;
    kept: Uint8Array;
    dOut: Float64Array;
  },
  grads: SaeArrays,
  { d_model, d_sae }: SaeSizes,
): void {
  for (const [at, act] of acts.entries()) {
    if (!kept[at] || !(act > 0)) continue;
    const [row, i] = [Math.floor(at / d_sae) * d_model, at % d_sae];
    let dPre = 0;
    for (let j = 0; j < d_model; j++) {
      dPre += dOut[row + j]! * p.W_dec[i * d_model + j]!;
      grads.W_dec[i * d_model + j]! += act * dOut[row + j]!;
    }
    grads.b_enc[i]! += dPre;
    for (let j = 0; j < d_model; j++) {
      grads.W_enc[i * d_model + j]! += dPre * x[row + j]!;
    }
  }
}

/** Adds the gradient of λ·mean_t Σ_i acts_i·‖W_dec_i‖; a row of norm 0 gets none of its own. */
export function l1Gradient(
  p: SaeArrays,
  x: ArrayLike<number>,
  acts: Float64Array,
  lambda: number,
  grads: SaeArrays,
  { B, d_model, d_sae }: SaeSizes,
): void {
  const norms = rowNorms(p.W_dec, d_model);
  for (const [at, act] of acts.entries()) {
    if (!(act > 0)) continue;
    const [row, i] = [Math.floor(at / d_sae) * d_model, at % d_sae];
    const norm = norms[i]!;
    grads.b_enc[i]! += lambda / B * norm;
    for (let j = 0; j < d_model; j++) {
      const w = i * d_model + j;
      grads.W_enc[w]! += lambda / B * norm * x[row + j]!;
      if (norm > 0) grads.W_dec[w]! += lambda / B * act * p.W_dec[w]! / norm;
    }
  }
}

/**
 * Adds the straight-through gradient of log θ, with K(u) = 1 for |u| < ½, else 0:
 * ∂acts/∂θ := −(θ/ε)·K((pre − θ)/ε), ∂H/∂θ := −(1/ε)·K((pre − θ)/ε), dlog θ = θ·dθ.
 */
export function thresholdGradient(
  p: SaeArrays & { readonly log_threshold?: Float64Array },
  pre: Float64Array,
  dxHat: Float64Array,
  grads: { readonly log_threshold?: Float64Array },
  { sizes, lambda = 0, bandwidth = 0 }: {
    readonly sizes: SaeSizes;
    readonly lambda?: number;
    readonly bandwidth?: number;
  },
): void {
  const { B, d_model, d_sae } = sizes;
  for (const [at, value] of pre.entries()) {
    const [row, i] = [Math.floor(at / d_sae) * d_model, at % d_sae];
    const threshold = Math.exp(p.log_threshold![i]!);
    if (!(Math.abs(value - threshold) < bandwidth / 2)) continue;
    let dAct = 0;
    for (let j = 0; j < d_model; j++) {
      dAct += dxHat[row + j]! * p.W_dec[i * d_model + j]!;
    }
    const dThreshold = -(threshold * dAct + lambda / B) / bandwidth;
    grads.log_threshold![i]! += threshold * dThreshold;
  }
}
