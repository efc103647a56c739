import { defineKernel, grid } from "../gpu/mod.ts";
import wgsl from "./sae_column_sums.wgsl" with { type: "text" };

/** Everything that training sums over a feature's entries but its weights' gradients. */
export const saeColumnSums = defineKernel({
  name: "sae_column_sums",
  wgsl,
  bindings: {
    runs: { access: "read", dtype: "u32", shape: ["window", 2] },
    blocks: { access: "read", dtype: "u32", shape: ["n_blocks"] },
    columns: { access: "read", dtype: "u32", shape: ["n_columns", 4] },
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
  uniforms: { window: "u32", block0: "u32", tokens: "u32", l1: "f32" },
  workgroups: ({ window }) => grid(Math.ceil(window / 64)),
});
