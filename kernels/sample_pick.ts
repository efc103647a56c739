import { defineKernel, grid } from "../gpu/mod.ts";
import words from "./sample_words.wgsl" with { type: "text" };
import wgsl from "./sample_pick.wgsl" with { type: "text" };

/**
 * The choice of tokens, 5 of 5: draws one token a row by inverse distribution in the order of the tokens.
 * What is drawn depends on the row's own seed and step alone. A row without a distribution (its
 * logits hold a NaN or +∞, or nothing finite) gives 0xffffffff.
 */
export const samplePick = defineKernel({
  name: "sample_pick",
  wgsl,
  helpers: [words],
  bindings: {
    logits: { access: "read", dtype: "f32", shape: ["R", "vocab"] },
    settings: { access: "read", dtype: "u32", shape: ["R", 8] },
    rows: { access: "read", dtype: "u32", shape: ["R", 4] },
    masses: { access: "read", dtype: "f32", shape: ["R", 128] },
    tokens: { access: "read_write", dtype: "u32", shape: ["R"] },
  },
  uniforms: { R: "u32", vocab: "u32" },
  workgroups: ({ R }) => grid(R),
});
