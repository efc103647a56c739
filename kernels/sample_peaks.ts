import { defineKernel, grid } from "../gpu/mod.ts";
import { nBlocks } from "./sample_bounds.ts";
import words from "./sample_words.wgsl" with { type: "text" };
import reduce from "./reduce.wgsl" with { type: "text" };
import wgsl from "./sample_peaks.wgsl" with { type: "text" };

/**
 * The choice of tokens, 1 of 5: the largest logit of each of a row's blocks, at most 128, and
 * the mass of the block. A row of `settings` is temperature, top_p and min_p (f32 bits) and top_k (0 keeps all), then the
 * row's seed, its step (how many tokens it has so far) and two words that are not used. All five take the same.
 */
export const samplePeaks = defineKernel({
  name: "sample_peaks",
  wgsl,
  helpers: [words, reduce],
  bindings: {
    logits: { access: "read", dtype: "f32", shape: ["R", "vocab"] },
    settings: { access: "read", dtype: "u32", shape: ["R", 8] },
    peaks: { access: "read_write", dtype: "u32", shape: ["R", 128, 2] },
    masses: { access: "read_write", dtype: "f32", shape: ["R", 128] },
  },
  uniforms: { R: "u32", vocab: "u32" },
  workgroups: ({ R, vocab }) => grid(R * nBlocks(vocab)),
});
