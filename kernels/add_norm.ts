import { defineKernel, grid } from "../gpu/mod.ts";
import wgsl from "./add_norm.wgsl" with { type: "text" };
import reduce from "./reduce.wgsl" with { type: "text" };

/** Post-norm residual add: resid += weight · x / rms(x). Source: Hugging Face `Olmo2DecoderLayer`. */
export const addNorm = defineKernel({
  name: "add_norm",
  wgsl,
  helpers: [reduce],
  bindings: {
    x: { access: "read", dtype: "f32", shape: ["T", "d_model"] },
    weight: { access: "read", dtype: "f32", shape: ["d_model"] },
    resid: { access: "read_write", dtype: "f32", shape: ["T", "d_model"] },
  },
  uniforms: { T: "u32", d_model: "u32", eps: "f32" },
  workgroups: ({ T }) => grid(T),
});
