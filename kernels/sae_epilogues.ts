import type { Epilogue } from "./matmul.ts";

/** acts = relu(x·W_encᵀ + b_enc). What is not finite stays so: a maximum would turn NaN into 0. */
export const ENCODE: Epilogue = {
  name: "sae_encode",
  bindings: { b_enc: { access: "read", dtype: "f32", shape: ["ldc"] } },
  uniforms: [],
  wgsl: `
fn epilogue(value: f32, m: u32, col: u32, at: u32) -> f32 {
  let pre = value + b_enc[col];
  let is_finite = (bitcast<u32>(pre) & 0x7f800000u) != 0x7f800000u;
  return select(pre, max(pre, 0.0), is_finite);
}`,
};

/** x̂ = acts·W_dec + b_dec, for the first window of features. */
export const DECODE: Epilogue = {
  name: "sae_decode",
  bindings: { b_dec: { access: "read", dtype: "f32", shape: ["ldc"] } },
  uniforms: [],
  wgsl: `
fn epilogue(value: f32, m: u32, col: u32, at: u32) -> f32 { return value + b_dec[col]; }`,
};

/** err = acts·W_dec + b_dec − x, for the first window of features. */
export const DECODE_ERROR: Epilogue = {
  name: "sae_decode_error",
  bindings: {
    b_dec: { access: "read", dtype: "f32", shape: ["ldc"] },
    x: { access: "read", dtype: "f32", shape: ["M", "ldc"] },
  },
  uniforms: [],
  wgsl: `
fn epilogue(value: f32, m: u32, col: u32, at: u32) -> f32 { return value + (b_dec[col] - x[at]); }`,
};

/** C += A·B, for the other windows of features. */
export const ACCUMULATE: Epilogue = {
  name: "accumulate",
  bindings: {},
  uniforms: [],
  wgsl: `
fn epilogue(value: f32, m: u32, col: u32, at: u32) -> f32 { return C[at] + value; }`,
};

/** dpre = acts > 0 ? (2/B)·err·W_decᵀ + (λ/B)·‖W_dec_i‖ : 0; `mean` is 2/B and `l1` is λ/B. */
export const ENCODE_BACKWARD: Epilogue = {
  name: "sae_encode_backward",
  bindings: {
    acts: { access: "read", dtype: "f32", shape: ["M", "ldc"] },
    norms: { access: "read", dtype: "f32", shape: ["ldc"] },
  },
  uniforms: ["mean", "l1"],
  wgsl: `
fn epilogue(value: f32, m: u32, col: u32, at: u32) -> f32 {
  return select(0.0, u.mean * value + u.l1 * norms[col], acts[at] > 0.0);
}`,
};

/** dW_dec = (2/B)·actsᵀ·err + l1_coef_i·W_dec_i, where l1_coef is (λ/B)·Σ_b acts_i / ‖W_dec_i‖. */
export const DECODE_BACKWARD: Epilogue = {
  name: "sae_decode_backward",
  bindings: {
    l1_coef: { access: "read", dtype: "f32", shape: ["M"] },
    W_dec: { access: "read", dtype: "f32", shape: ["M", "ldc"] },
  },
  uniforms: ["mean"],
  wgsl: `
fn epilogue(value: f32, m: u32, col: u32, at: u32) -> f32 {
  return u.mean * value + l1_coef[m] * W_dec[at];
}`,
};
