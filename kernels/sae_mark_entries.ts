import { defineKernel, grid } from "../gpu/mod.ts";
import wgsl from "./sae_mark_entries.wgsl" with { type: "text" };

/** Marks in a bitmap which rows each feature of a window has entries in. */
export const saeMarkEntries = defineKernel({
  name: "sae_mark_entries",
  wgsl,
  bindings: {
    entries: { access: "read", dtype: "u32", shape: ["capacity", 2] },
    entry_rows: { access: "read", dtype: "u32", shape: ["n_groups"] },
    row_start: { access: "read", dtype: "u32", shape: ["n_starts"] },
    bitmap: { access: "read_write", dtype: "u32", shape: ["window", "words"] },
  },
  uniforms: {
    n_starts: "u32",
    n_groups: "u32",
    window: "u32",
    words: "u32",
    start: "u32",
  },
  workgroups: ({ n_groups }) => grid(Math.ceil(n_groups / 16)),
});
