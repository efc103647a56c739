import { defineKernel } from "../gpu/mod.ts";
import wgsl from "./sae_topk_mean.wgsl" with { type: "text" };

/**
 * Moving average of the smallest activation that is kept, which is what a feature must exceed where rows
 * are seen alone. `mean` is the average and how many went in, both 0 at first.
 */
export const saeTopKMean = defineKernel({
  name: "sae_topk_mean",
  wgsl,
  bindings: {
    thresholds: { access: "read", dtype: "u32", shape: ["slots", 2] },
    mean: { access: "read_write", dtype: "f32", shape: [2] },
  },
  uniforms: { slots: "u32", decay: "f32" },
  workgroups: () => [1, 1, 1],
});
