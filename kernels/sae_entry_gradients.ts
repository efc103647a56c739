import { defineKernel, grid } from "../gpu/mod.ts";
import wgsl from "./sae_entry_gradients.wgsl" with { type: "text" };

/** Gradient of each entry's activation. */
export const saeEntryGradients = defineKernel({
  name: "sae_entry_gradients",
  wgsl,
  bindings: {
    entries: { access: "read", dtype: "u32", shape: ["capacity", 2] },
    entry_rows: { access: "read", dtype: "u32", shape: ["n_groups"] },
    row_start: { access: "read", dtype: "u32", shape: ["n_starts"] },
    err: { access: "read", dtype: "f32", shape: ["B", "d_model"] },
    W_dec: { access: "read", dtype: "f32", shape: ["window", "d_model"] },
    weights: { access: "read", dtype: "f32", shape: ["window"] },
    dacts: { access: "read_write", dtype: "f32", shape: ["n_dacts"] },
  },
  uniforms: {
    n_starts: "u32",
    n_groups: "u32",
    d_model: "u32",
    window: "u32",
    start: "u32",
    mean: "f32",
    weight: "f32",
  },
  workgroups: ({ n_groups }) => grid(Math.ceil(n_groups / 64)),
});
