import { defineKernel, grid } from "../gpu/mod.ts";
import { nBlocks } from "./sample_bounds.ts";
import words from "./sample_words.wgsl" with { type: "text" };
import wgsl from "./sample_collect.wgsl" with { type: "text" };

/**
 * The choice of tokens, 3 of 5, for rows with filters: the logits at or above the bound, packed to
 * the front of each block. A row of candidates has `blockCapacity` words.
 */
export const sampleCollect = defineKernel({
  name: "sample_collect",
  wgsl,
  helpers: [words],
  bindings: {
    logits: { access: "read", dtype: "f32", shape: ["R", "vocab"] },
    settings: { access: "read", dtype: "u32", shape: ["R", 8] },
    peaks: { access: "read", dtype: "u32", shape: ["R", 128, 2] },
    rows: { access: "read", dtype: "u32", shape: ["R", 4] },
    candidates: {
      access: "read_write",
      dtype: "u32",
      shape: ["R", "capacity"],
    },
    n_candidates: { access: "read_write", dtype: "u32", shape: ["R", 128] },
  },
  uniforms: { R: "u32", vocab: "u32" },
  workgroups: ({ R, vocab }) => grid(R * nBlocks(vocab)),
});
