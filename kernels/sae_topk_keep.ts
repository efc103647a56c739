import { defineKernel, grid } from "../gpu/mod.ts";
import key from "./sae_topk_key.wgsl" with { type: "text" };
import wgsl from "./sae_topk_keep.wgsl" with { type: "text" };

/** Sets to 0, in place, what lies below its row's threshold, or below the one of all rows. */
export const saeTopKKeep = defineKernel({
  name: "sae_topk_keep",
  wgsl,
  helpers: [key],
  bindings: {
    thresholds: { access: "read", dtype: "u32", shape: ["slots", 2] },
    acts: { access: "read_write", dtype: "f32", shape: ["T", "window"] },
  },
  uniforms: { T: "u32", window: "u32", slots: "u32" },
  workgroups: ({ T }) => grid(T),
});
