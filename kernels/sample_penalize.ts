import { defineKernel, grid } from "../gpu/mod.ts";
import wgsl from "./sample_penalize.wgsl" with { type: "text" };

/**
 * Penalizes tokens that were there before, in place. Each of `penalties` is a row of the batch, its
 * row of `counts`, and as f32 bits the repetition, presence and frequency penalties. Of a token,
 * `counts` has how often it was generated, and in the top bit whether the prompt holds it. Logits
 * that are not finite stay as they are. Source: Hugging Face `RepetitionPenaltyLogitsProcessor`;
 * OpenAI's API for presence and frequency.
 */
export const samplePenalize = defineKernel({
  name: "sample_penalize",
  wgsl,
  bindings: {
    logits: { access: "read_write", dtype: "f32", shape: ["R", "vocab"] },
    penalties: { access: "read", dtype: "u32", shape: ["n", 5] },
    counts: { access: "read", dtype: "u32", shape: ["rows", "vocab"] },
  },
  uniforms: { n: "u32", vocab: "u32" },
  workgroups: ({ n, vocab }) => grid(n * Math.ceil(vocab / 256)),
});
