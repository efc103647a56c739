import type { Epilogue } from "./matmul.ts";

/** acts = relu(x·W_encᵀ + b_enc). What is not finite stays so: a maximum would turn NaN into 0. */
export const ENCODE: Epilogue = {
  name: "sae_encode",
  columns: ["b_enc"],
  bindings: { b_enc: { access: "read", dtype: "f32", shape: ["ldc"] } },
  uniforms: [],
  wgsl: `
fn epilogue(value: f32, e: vec2<f32>, c: vec2<f32>, m: u32) -> f32 {
  let pre = value + c.x;
  let is_finite = (bitcast<u32>(pre) & 0x7f800000u) != 0x7f800000u;
  return select(pre, max(pre, 0.0), is_finite);
}`,
};

/**
 * acts = pre > θ ? pre : 0 with pre = x·W_encᵀ + b_enc, for training: pre in (θ − ε/2, θ] gives −0, which adds
 * nothing to a product but marks that the threshold gets a gradient there. What is not finite stays so.
 */
export const ENCODE_JUMPRELU: Epilogue = {
  name: "sae_encode_jumprelu",
  columns: ["b_enc", "thresholds"],
  bindings: {
    b_enc: { access: "read", dtype: "f32", shape: ["ldc"] },
    thresholds: { access: "read", dtype: "f32", shape: ["ldc"] },
  },
  uniforms: ["half_band", "scale"],
  wgsl: `
fn epilogue(value: f32, e: vec2<f32>, c: vec2<f32>, m: u32) -> f32 {
  let pre = u.scale * value + c.x;
  let threshold = c.y;
  let is_finite = (bitcast<u32>(pre) & 0x7f800000u) != 0x7f800000u;
  let below = select(0u, 0x80000000u, pre > threshold - u.half_band);
  return select(bitcast<f32>(below), pre, pre > threshold || !is_finite);
}`,
};

/** {@link ENCODE} of inputs that are still to be multiplied by a scale. */
export const ENCODE_SCALED: Epilogue = {
  ...ENCODE,
  name: "sae_encode_scaled",
  uniforms: ["scale"],
  wgsl: `
fn epilogue(value: f32, e: vec2<f32>, c: vec2<f32>, m: u32) -> f32 {
  let pre = u.scale * value + c.x;
  let is_finite = (bitcast<u32>(pre) & 0x7f800000u) != 0x7f800000u;
  return select(pre, max(pre, 0.0), is_finite);
}`,
};

/** {@link ENCODE_SCALED} that marks its entries and adds up acts·‖W_dec_i‖ on the way. */
export const ENCODE_TILES: Epilogue = {
  ...ENCODE_SCALED,
  name: "sae_encode_tiles",
  columns: ["b_enc", "norms"],
  bindings: {
    ...ENCODE.bindings,
    norms: { access: "read", dtype: "f32", shape: ["ldc"] },
  },
  tiles: `fn summand(value: f32, c: vec2<f32>) -> f32 { return value * c.y; }`,
};

/** {@link ENCODE_JUMPRELU} that marks its entries and counts what is above the threshold on the way. */
export const ENCODE_JUMPRELU_TILES: Epilogue = {
  ...ENCODE_JUMPRELU,
  name: "sae_encode_jumprelu_tiles",
  tiles:
    `fn summand(value: f32, c: vec2<f32>) -> f32 { return f32(value > 0.0); }`,
};

/** x̂ = acts·W_dec + b_dec, for the first window of features. */
export const DECODE: Epilogue = {
  name: "sae_decode",
  columns: ["b_dec"],
  bindings: { b_dec: { access: "read", dtype: "f32", shape: ["ldc"] } },
  uniforms: [],
  wgsl: `
fn epilogue(value: f32, e: vec2<f32>, c: vec2<f32>, m: u32) -> f32 { return value + c.x; }`,
};

/** err = acts·W_dec + b_dec − x, for the first window of features. */
export const DECODE_ERROR: Epilogue = {
  name: "sae_decode_error",
  elements: ["x"],
  columns: ["b_dec"],
  bindings: {
    b_dec: { access: "read", dtype: "f32", shape: ["ldc"] },
    x: { access: "read", dtype: "f32", shape: ["M", "ldc"] },
  },
  uniforms: [],
  wgsl: `
fn epilogue(value: f32, e: vec2<f32>, c: vec2<f32>, m: u32) -> f32 { return value + (c.x - e.x); }`,
};

/** C += A·B, for the other windows of features. */
export const ACCUMULATE: Epilogue = {
  name: "accumulate",
  elements: ["C"],
  bindings: {},
  uniforms: [],
  wgsl: `
fn epilogue(value: f32, e: vec2<f32>, c: vec2<f32>, m: u32) -> f32 { return e.x + value; }`,
};

/** dpre = acts > 0 ? (2/rows)·err·W_decᵀ + (λ/rows)·‖W_dec_i‖ : 0; `mean` is 2/rows and `l1` is λ/rows. */
export const ENCODE_BACKWARD: Epilogue = {
  name: "sae_encode_backward",
  elements: ["acts"],
  columns: ["norms"],
  bindings: {
    acts: { access: "read", dtype: "f32", shape: ["M", "ldc"] },
    norms: { access: "read", dtype: "f32", shape: ["ldc"] },
  },
  uniforms: ["mean", "l1"],
  wgsl: `
fn epilogue(value: f32, e: vec2<f32>, c: vec2<f32>, m: u32) -> f32 {
  return select(0.0, u.mean * value + u.l1 * c.x, e.x > 0.0);
}`,
};

/** dact = (2/rows)·err·W_decᵀ where an activation is an entry (−0 included, see {@link ENCODE_JUMPRELU}), else 0. */
export const ENTRY_BACKWARD: Epilogue = {
  name: "sae_entry_backward",
  elements: ["acts"],
  bindings: { acts: { access: "read", dtype: "f32", shape: ["M", "ldc"] } },
  uniforms: ["mean"],
  wgsl: `
fn epilogue(value: f32, e: vec2<f32>, c: vec2<f32>, m: u32) -> f32 {
  return select(0.0, u.mean * value, bitcast<u32>(e.x) != 0u);
}`,
};

/** dW_dec = (2/rows)·actsᵀ·err + l1_coef_i·W_dec_i, where l1_coef is (λ/rows)·Σ_b acts_i / ‖W_dec_i‖. */
export const DECODE_BACKWARD: Epilogue = {
  name: "sae_decode_backward",
  elements: ["W_dec"],
  bindings: {
    l1_coef: { access: "read", dtype: "f32", shape: ["M"] },
    W_dec: { access: "read", dtype: "f32", shape: ["M", "ldc"] },
  },
  uniforms: ["mean"],
  wgsl: `
fn epilogue(value: f32, e: vec2<f32>, c: vec2<f32>, m: u32) -> f32 {
  return u.mean * value + l1_coef[m] * e.x;
}`,
};

/** {@link DECODE_BACKWARD}, added to what earlier batches of the step left where a feature is touched. */
export const DECODE_BACKWARD_ADD: Epilogue = {
  name: "sae_decode_backward_add",
  elements: ["W_dec", "C"],
  bindings: {
    ...DECODE_BACKWARD.bindings,
    touched: { access: "read", dtype: "u32", shape: ["M"] },
  },
  uniforms: ["mean"],
  wgsl: `
fn epilogue(value: f32, e: vec2<f32>, c: vec2<f32>, m: u32) -> f32 {
  let before = select(0.0, e.y, touched[m] == 2u);
  return before + u.mean * value + l1_coef[m] * e.x;
}`,
};

/** C = scale·A·B. */
export const SCALED: Epilogue = {
  name: "scaled",
  bindings: {},
  uniforms: ["scale"],
  wgsl: `
fn epilogue(value: f32, e: vec2<f32>, c: vec2<f32>, m: u32) -> f32 { return u.scale * value; }`,
};

/** C = scale·A·B, added to what earlier batches of the step left where a feature is touched. */
export const ADD_TOUCHED: Epilogue = {
  name: "add_touched",
  elements: ["C"],
  bindings: { touched: { access: "read", dtype: "u32", shape: ["M"] } },
  uniforms: ["scale"],
  wgsl: `
fn epilogue(value: f32, e: vec2<f32>, c: vec2<f32>, m: u32) -> f32 {
  return select(0.0, e.x, touched[m] == 2u) + u.scale * value;
}`,
};
