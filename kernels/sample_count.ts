import { defineKernel, grid } from "../gpu/mod.ts";
import wgsl from "./sample_count.wgsl" with { type: "text" };

/** Counts the tokens that were chosen, of the rows that have penalties; see `samplePenalize`. Ids out of the vocabulary are left out. */
export const sampleCount = defineKernel({
  name: "sample_count",
  wgsl,
  bindings: {
    penalties: { access: "read", dtype: "u32", shape: ["n", 5] },
    tokens: { access: "read", dtype: "u32", shape: ["R"] },
    counts: { access: "read_write", dtype: "u32", shape: ["rows", "vocab"] },
  },
  uniforms: { n: "u32", vocab: "u32" },
  workgroups: ({ n }) => grid(Math.ceil(n / 64)),
});
