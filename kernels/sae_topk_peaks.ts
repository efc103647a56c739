import { defineKernel, grid } from "../gpu/mod.ts";
import key from "./sae_topk_key.wgsl" with { type: "text" };
import wgsl from "./sae_topk_peaks.wgsl" with { type: "text" };

/** The largest activation of each of P groups of a row; see `selectTopK`. */
export const saeTopKPeaks = defineKernel({
  name: "sae_topk_peaks",
  wgsl,
  helpers: [key],
  bindings: {
    acts: { access: "read", dtype: "f32", shape: ["T", "window"] },
    marks: { access: "read", dtype: "u32", shape: ["marked"] },
    peaks: { access: "read_write", dtype: "f32", shape: ["T", "P"] },
  },
  uniforms: { T: "u32", window: "u32", P: "u32", least: "u32" },
  workgroups: ({ T, P }) => grid(Math.ceil(T * P / 64)),
});
