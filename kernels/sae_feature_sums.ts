import { defineKernel } from "../gpu/mod.ts";
import wgsl from "./sae_feature_sums.wgsl" with { type: "text" };

/** Everything that training sums over the batch for each feature but its weights' gradients. */
export const saeFeatureSums = defineKernel({
  name: "sae_feature_sums",
  wgsl,
  bindings: {
    acts: { access: "read", dtype: "f32", shape: ["B", "window"] },
    dpre: { access: "read", dtype: "f32", shape: ["B", "window"] },
    norms: { access: "read", dtype: "f32", shape: ["window"] },
    db_enc: { access: "read_write", dtype: "f32", shape: ["window"] },
    l1_coef: { access: "read_write", dtype: "f32", shape: ["window"] },
    touched: { access: "read_write", dtype: "u32", shape: ["window"] },
    tokens_since_fired: {
      access: "read_write",
      dtype: "u32",
      shape: ["window"],
    },
  },
  uniforms: { B: "u32", window: "u32", l1: "f32" },
  workgroups: ({ window }) => [Math.ceil(window / 64), 1, 1],
});
