import { defineKernel, grid } from "../gpu/mod.ts";
import reduce from "./reduce.wgsl" with { type: "text" };
import wgsl from "./rms_norm.wgsl" with { type: "text" };

/** Row-wise RMSNorm: y = weight · x / rms(x). Source: Hugging Face `Olmo2RMSNorm`. */
export const rmsNorm = defineKernel({
  name: "rms_norm",
  wgsl,
  helpers: [reduce],
  bindings: {
    x: { access: "read", dtype: "f32", shape: ["T", "d_model"] },
    weight: { access: "read", dtype: "f32", shape: ["d_model"] },
    y: { access: "read_write", dtype: "f32", shape: ["T", "d_model"] },
  },
  uniforms: { T: "u32", d_model: "u32", eps: "f32" },
  workgroups: ({ T }) => grid(T),
});
