import { defineKernel } from "../gpu/mod.ts";
import wgsl from "./sae_feature_stats.wgsl" with { type: "text" };

/** Adds a batch to how often each feature fired and to its largest activation. */
export const saeFeatureStats = defineKernel({
  name: "sae_feature_stats",
  wgsl,
  bindings: {
    acts: { access: "read", dtype: "f32", shape: ["T", "window"] },
    n_fired: { access: "read_write", dtype: "u32", shape: ["window"] },
    max_act: { access: "read_write", dtype: "f32", shape: ["window"] },
  },
  uniforms: { T: "u32", window: "u32" },
  workgroups: ({ window }) => [Math.ceil(window / 64), 1, 1],
});
