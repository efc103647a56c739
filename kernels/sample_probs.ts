import { defineKernel, grid } from "../gpu/mod.ts";
import words from "./sample_words.wgsl" with { type: "text" };
import wgsl from "./sample_probs.wgsl" with { type: "text" };

/**
 * What `sample_pick` drew from, for checks: probabilities of all tokens, 0 where a filter leaves
 * them out. A row without a distribution becomes NaN.
 */
export const sampleProbs = defineKernel({
  name: "sample_probs",
  wgsl,
  helpers: [words],
  bindings: {
    logits: { access: "read", dtype: "f32", shape: ["R", "vocab"] },
    settings: { access: "read", dtype: "u32", shape: ["R", 8] },
    rows: { access: "read", dtype: "u32", shape: ["R", 4] },
    probs: { access: "read_write", dtype: "f32", shape: ["R", "vocab"] },
  },
  uniforms: { R: "u32", vocab: "u32" },
  workgroups: ({ R, vocab }) => grid(Math.ceil(R * vocab / 64)),
});
