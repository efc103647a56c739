import { defineKernel, grid } from "../gpu/mod.ts";
import wgsl from "./steer.wgsl" with { type: "text" };
import f32 from "./steer_f32.wgsl" with { type: "text" };
import vec4 from "./steer_vec4.wgsl" with { type: "text" };

/** Most features that may act on one token, or be watched there, at one layer: their changes lie in workgroup memory. */
export const MAX_STEERED_FEATURES = 2048;

/** The numbers by which {@link steerKernel} knows its modes; `ablate` is a clamp to 0, and `watch` changes nothing. */
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

const define = (value: string) =>
  defineKernel({
    name: "steer",
    wgsl,
    helpers: [value],
    bindings: {
      W_enc: { access: "read", dtype: "f32", shape: ["rows", "d_model"] },
      W_dec: { access: "read", dtype: "f32", shape: ["rows", "d_model"] },
      entry: { access: "read", dtype: "u32", shape: ["entries", ENTRY_WORDS] },
      tokens: { access: "read", dtype: "u32", shape: ["T", 4] },
      x: { access: "read_write", dtype: "f32", shape: ["T", "d_model"] },
      acts: {
        access: "read_write",
        dtype: "f32",
        shape: ["acts_rows", "slots"],
      },
    },
    uniforms: { T: "u32", d_model: "u32", n_captured: "u32" },
    workgroups: ({ T }) => grid(T),
  });

const steer = define(f32);
const steerWide = define(vec4);

/**
 * Rank-k steering of a residual stream of `d_model` numbers, with a range of entries for every token.
 * With `n_captured`, the width of `acts` f32 `[T, n_captured]`, activations are stored; with 0 `acts` is left alone.
 */
export function steerKernel(d_model: number): typeof steer {
  return d_model % 4 === 0 ? steerWide : steer;
}
