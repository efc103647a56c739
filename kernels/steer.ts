import { defineKernel, grid } from "../gpu/mod.ts";
import wgsl from "./steer.wgsl" with { type: "text" };

/** Most features that may act on one token, or be watched there, at one layer: their changes lie in workgroup memory. */
export const MAX_STEERED_FEATURES = 2048;

/** The numbers by which {@link steer} knows its modes; `ablate` is a clamp to 0, and `watch` changes nothing. */
export const STEER_MODES = {
  clamp: 0,
  add: 1,
  min: 2,
  scale: 3,
  watch: 4,
} as const;

/** The threshold below which no activation is, finite because shaders may assume that all numbers are: the linear encoding. */
export const NO_THRESHOLD = -3.4028234663852886e38;

/** The slot of an entry whose activation is not captured. */
export const NO_SLOT = 2 ** 32 - 1;

/** Words of an entry: b_enc, mode, value, threshold, after, decay, slot, row; the first, third and fourth are f32 bits. */
export const ENTRY_WORDS = 8;

/**
 * Rank-k steering of the residual stream, with a range of entries for every token.
 * With `n_captured`, the width of `acts`, activations are stored; with 0 `acts` can be any tensor.
 */
export const steer = defineKernel({
  name: "steer",
  wgsl,
  bindings: {
    W_enc: { access: "read", dtype: "f32", shape: ["rows", "d_model"] },
    W_dec: { access: "read", dtype: "f32", shape: ["rows", "d_model"] },
    entry: { access: "read", dtype: "u32", shape: ["entries", ENTRY_WORDS] },
    tokens: { access: "read", dtype: "u32", shape: ["T", 4] },
    x: { access: "read_write", dtype: "f32", shape: ["T", "d_model"] },
    acts: { access: "read_write", dtype: "f32", shape: ["captured", "slots"] },
  },
  uniforms: { T: "u32", d_model: "u32", n_captured: "u32" },
  workgroups: ({ T }) => grid(T),
});
