import { defineKernel, grid } from "../gpu/mod.ts";
import wgsl from "./silu_mul.wgsl" with { type: "text" };

/** The gate of SwiGLU: y = silu(gate) · up. Source: Hugging Face `Olmo2MLP`. */
export const siluMul = defineKernel({
  name: "silu_mul",
  wgsl,
  bindings: {
    gate_up: { access: "read", dtype: "f32", shape: ["T", "two_d_ffn"] },
    y: { access: "read_write", dtype: "f32", shape: ["T", "d_ffn"] },
  },
  uniforms: { T: "u32", d_ffn: "u32" },
  workgroups: ({ T, d_ffn }) => grid(Math.ceil(T * d_ffn / 64)),
});
