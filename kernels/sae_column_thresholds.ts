import { defineKernel, grid } from "../gpu/mod.ts";
import wgsl from "./sae_column_thresholds.wgsl" with { type: "text" };

/**
 * Gradient of a jumprelu's thresholds, from lists of entries.
 * Source: Rajamanoharan et al. 2024, "Jumping Ahead".
 */
export const saeColumnThresholds = defineKernel({
  name: "sae_column_thresholds",
  wgsl,
  bindings: {
    runs: { access: "read", dtype: "u32", shape: ["window", 2] },
    blocks: { access: "read", dtype: "u32", shape: ["n_blocks"] },
    columns: { access: "read", dtype: "u32", shape: ["n_columns", 4] },
    thresholds: { access: "read", dtype: "f32", shape: ["window"] },
    touched: { access: "read", dtype: "u32", shape: ["window"] },
    dlog: { access: "read_write", dtype: "f32", shape: ["window"] },
  },
  uniforms: { window: "u32", block0: "u32", bandwidth: "f32", weight: "f32" },
  workgroups: ({ window }) => grid(Math.ceil(window / 64)),
});
