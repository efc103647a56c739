import { defineKernel } from "../gpu/mod.ts";
import wgsl from "./sae_feature_runs.wgsl" with { type: "text" };

/** Blocks of features that {@link saeFeatureRuns} adds up on their own. */
export function featureBlocks(window: number): number {
  return Math.ceil(window / 256);
}

/** How many entries each feature has, and how many of its block come before. */
export const saeFeatureRuns = defineKernel({
  name: "sae_feature_runs",
  wgsl,
  bindings: {
    bitmap: { access: "read", dtype: "u32", shape: ["window", "words"] },
    runs: { access: "read_write", dtype: "u32", shape: ["window", 2] },
    blocks: { access: "read_write", dtype: "u32", shape: ["n_blocks"] },
  },
  uniforms: { window: "u32", words: "u32", block0: "u32" },
  workgroups: ({ window }) => [featureBlocks(window), 1, 1],
});
