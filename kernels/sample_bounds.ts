import { defineKernel, grid } from "../gpu/mod.ts";
import words from "./sample_words.wgsl" with { type: "text" };
import wgsl from "./sample_bounds.wgsl" with { type: "text" };

/** The most blocks that a row of logits is cut into. */
export const N_BLOCKS = 128;

/** Words that a row of logits takes in blocks: all of equal size, a multiple of 8. */
export function blockCapacity(vocab: number): number {
  return 8 * N_BLOCKS * Math.ceil(vocab / (8 * N_BLOCKS));
}

/** Blocks that hold a token. */
export function nBlocks(vocab: number): number {
  return Math.ceil(N_BLOCKS * vocab / blockCapacity(vocab));
}

/**
 * The choice of tokens, 2 of 5: what the blocks say of the whole row, with a bound below which no filter keeps a token.
 * A row of `rows` is the largest logit, the first token that has it, the least logit to keep, and the
 * mass that is kept (f32 bits); logits are words of the same order.
 */
export const sampleBounds = defineKernel({
  name: "sample_bounds",
  wgsl,
  helpers: [words],
  bindings: {
    settings: { access: "read", dtype: "u32", shape: ["R", 8] },
    peaks: { access: "read", dtype: "u32", shape: ["R", 128, 2] },
    masses: { access: "read_write", dtype: "f32", shape: ["R", 128] },
    rows: { access: "read_write", dtype: "u32", shape: ["R", 4] },
  },
  uniforms: { R: "u32", vocab: "u32" },
  workgroups: ({ R }) => grid(R),
});
