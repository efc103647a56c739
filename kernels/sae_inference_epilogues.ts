import type { Epilogue } from "./matmul.ts";

/**
 * acts = pre > threshold ? pre : 0 with pre = x·W_encᵀ + b_enc. What is not finite stays so: no comparison with NaN holds.
 */
export const ENCODE_JUMPRELU: Epilogue = {
  name: "sae_encode_jumprelu",
  columns: ["b_enc", "threshold"],
  bindings: {
    b_enc: { access: "read", dtype: "f32", shape: ["ldc"] },
    threshold: { access: "read", dtype: "f32", shape: ["ldc"] },
  },
  uniforms: [],
  wgsl: `
fn epilogue(value: f32, e: vec2<f32>, c: vec2<f32>, m: u32) -> f32 {
  let pre = value + c.x;
  let is_finite = (bitcast<u32>(pre) & 0x7f800000u) != 0x7f800000u;
  return select(pre, select(0.0, pre, pre > c.y), is_finite);
}`,
};
