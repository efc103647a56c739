import { defineKernel, grid } from "../gpu/mod.ts";
import wgsl from "./sae_topk_copy.wgsl" with { type: "text" };
import key from "./sae_topk_key.wgsl" with { type: "text" };

/** Copies what is at or above its row's threshold, and 0 for the rest, of the features that take part. */
export const saeTopKCopy = defineKernel({
  name: "sae_topk_copy",
  wgsl,
  helpers: [key],
  bindings: {
    acts: { access: "read", dtype: "f32", shape: ["T", "window"] },
    marks: { access: "read", dtype: "u32", shape: ["marked"] },
    thresholds: { access: "read", dtype: "u32", shape: ["slots", 2] },
    kept: { access: "read_write", dtype: "f32", shape: ["T", "window"] },
  },
  uniforms: { T: "u32", window: "u32", slots: "u32", least: "u32" },
  workgroups: ({ T }) => grid(T),
});
