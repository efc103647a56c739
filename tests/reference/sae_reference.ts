/**
 * The L1 SAE in float64, written for reading: forward, loss, gradients, Adam.
 * @module
 */

/** Sizes of an SAE and its batch. */
export interface SaeSizes {
  readonly B: number;
  readonly d_model: number;
  readonly d_sae: number;
}

/** Parameters or gradients. */
export interface SaeArrays {
  readonly W_enc: Float64Array;
  readonly b_enc: Float64Array;
  readonly W_dec: Float64Array;
  readonly b_dec: Float64Array;
}

/** Everything of one forward and backward pass. */
export interface SaePass {
  readonly acts: Float64Array;
  readonly reconstruction: Float64Array;
  readonly mse: number;
  readonly l1: number;
  readonly L0: number;
  readonly loss: number;
  readonly grads: SaeArrays;
  readonly gradNorm: number;
}

/** Norms of the rows of `[rows, columns]`. */
export function rowNorms(W: ArrayLike<number>, columns: number): Float64Array {
  const norms = new Float64Array(W.length / columns);
  for (let i = 0; i < norms.length; i++) {
    let squares = 0;
    for (let j = 0; j < columns; j++) squares += W[i * columns + j]! ** 2;
    norms[i] = Math.sqrt(squares);
  }
  return norms;
}

/** acts `[B, d_sae]` and x̂ `[B, d_model]`. */
export function forward(
  p: SaeArrays,
  x: ArrayLike<number>,
  { B, d_model, d_sae }: SaeSizes,
): { acts: Float64Array; reconstruction: Float64Array } {
  const acts = new Float64Array(B * d_sae);
  const reconstruction = new Float64Array(B * d_model);
  for (let b = 0; b < B; b++) {
    for (let i = 0; i < d_sae; i++) {
      let pre = p.b_enc[i]!;
      for (let j = 0; j < d_model; j++) {
        pre += x[b * d_model + j]! * p.W_enc[i * d_model + j]!;
      }
      acts[b * d_sae + i] = Math.max(pre, 0);
    }
    for (let j = 0; j < d_model; j++) {
      let sum = p.b_dec[j]!;
      for (let i = 0; i < d_sae; i++) {
        sum += acts[b * d_sae + i]! * p.W_dec[i * d_model + j]!;
      }
      reconstruction[b * d_model + j] = sum;
    }
  }
  return { acts, reconstruction };
}

/** mean_t Σ_j (x̂ − x)², mean_t Σ_i acts_i·‖W_dec_i‖, and mse + λ·l1. */
export function loss(
  p: SaeArrays,
  x: ArrayLike<number>,
  lambda: number,
  sizes: SaeSizes,
): { mse: number; l1: number; loss: number } {
  const { acts, reconstruction } = forward(p, x, sizes);
  const norms = rowNorms(p.W_dec, sizes.d_model);
  let [mse, l1] = [0, 0];
  for (const [i, value] of reconstruction.entries()) {
    mse += (value - x[i]!) ** 2;
  }
  for (const [i, act] of acts.entries()) l1 += act * norms[i % sizes.d_sae]!;
  mse /= sizes.B;
  l1 /= sizes.B;
  return { mse, l1, loss: mse + lambda * l1 };
}

/** One pass with gradients by hand; a decoder row of norm 0 gets no gradient from the L1 term. */
export function forwardBackward(
  p: SaeArrays,
  x: ArrayLike<number>,
  lambda: number,
  sizes: SaeSizes,
): SaePass {
  const { B, d_model, d_sae } = sizes;
  const { acts, reconstruction } = forward(p, x, sizes);
  const norms = rowNorms(p.W_dec, d_model);
  const grads: SaeArrays = {
    W_enc: new Float64Array(d_sae * d_model),
    b_enc: new Float64Array(d_sae),
    W_dec: new Float64Array(d_sae * d_model),
    b_dec: new Float64Array(d_model),
  };
  let nFired = 0;
  for (let b = 0; b < B; b++) {
    const dxHat = new Float64Array(d_model);
    for (let j = 0; j < d_model; j++) {
      const at = b * d_model + j;
      dxHat[j] = 2 / B * (reconstruction[at]! - x[at]!);
      grads.b_dec[j]! += dxHat[j]!;
    }
    for (let i = 0; i < d_sae; i++) {
      const act = acts[b * d_sae + i]!;
      if (!(act > 0)) continue;
      nFired++;
      let dact = lambda / B * norms[i]!;
      for (let j = 0; j < d_model; j++) {
        const w = p.W_dec[i * d_model + j]!;
        dact += dxHat[j]! * w;
        grads.W_dec[i * d_model + j]! += act * dxHat[j]! +
          (norms[i]! > 0 ? lambda / B * act * w / norms[i]! : 0);
      }
      grads.b_enc[i]! += dact;
      for (let j = 0; j < d_model; j++) {
        grads.W_enc[i * d_model + j]! += dact * x[b * d_model + j]!;
      }
    }
  }
  let squares = 0;
  for (const grad of Object.values(grads)) {
    for (const value of grad) squares += value ** 2;
  }
  return {
    acts,
    reconstruction,
    ...loss(p, x, lambda, sizes),
    L0: nFired / B,
    grads,
    gradNorm: Math.sqrt(squares),
  };
}

/** Adam with PyTorch's clipping, in place; `t` counts from 1. */
export function adamStep(
  W: Float64Array,
  m: Float64Array,
  v: Float64Array,
  grad: ArrayLike<number>,
  options: { clip: number; lr: number; t: number },
): void {
  const [beta1, beta2, eps] = [0.9, 0.999, 1e-8];
  for (let i = 0; i < W.length; i++) {
    const g = grad[i]! * options.clip;
    m[i] = beta1 * m[i]! + (1 - beta1) * g;
    v[i] = beta2 * v[i]! + (1 - beta2) * g * g;
    const mHat = m[i]! / (1 - beta1 ** options.t);
    const vHat = v[i]! / (1 - beta2 ** options.t);
    W[i]! -= options.lr * mHat / (Math.sqrt(vHat) + eps);
  }
}
