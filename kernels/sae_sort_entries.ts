import { defineKernel, grid } from "../gpu/mod.ts";
import wgsl from "./sae_sort_entries.wgsl" with { type: "text" };

/** Sorts the entries of a window by feature, and those of a feature by row. */
export const saeSortEntries = defineKernel({
  name: "sae_sort_entries",
  wgsl,
  bindings: {
    entries: { access: "read", dtype: "u32", shape: ["capacity", 2] },
    entry_rows: { access: "read", dtype: "u32", shape: ["n_groups"] },
    row_start: { access: "read", dtype: "u32", shape: ["n_starts"] },
    dacts: { access: "read", dtype: "f32", shape: ["n_dacts"] },
    bitmap: { access: "read", dtype: "u32", shape: ["window", "words"] },
    runs: { access: "read", dtype: "u32", shape: ["window", 2] },
    blocks: { access: "read", dtype: "u32", shape: ["n_blocks"] },
    columns: { access: "read_write", dtype: "u32", shape: ["n_columns", 4] },
  },
  uniforms: {
    n_starts: "u32",
    n_groups: "u32",
    window: "u32",
    words: "u32",
    start: "u32",
    block0: "u32",
  },
  workgroups: ({ n_groups }) => grid(Math.ceil(n_groups / 16)),
});
