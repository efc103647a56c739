import { defineKernel, grid } from "../gpu/mod.ts";
import reduce from "./reduce.wgsl" with { type: "text" };
import wgsl from "./steer.wgsl" with { type: "text" };

/** Most features that may act on one token. */
export const MAX_STEERED_FEATURES = 256;

/** The numbers by which {@link steer} knows its modes; `ablate` is a clamp to 0. */
export const STEER_MODES = { clamp: 0, add: 1, min: 2, scale: 3 } as const;

/** The threshold below which no activation is, finite because shaders may assume that all numbers are: the linear encoding. */
export const NO_THRESHOLD = -3.4028234663852886e38;

/** Rank-k steering of the residual stream, with a range of entries for every token. */
export const steer = defineKernel({
  name: "steer",
  wgsl,
  helpers: [reduce],
  bindings: {
    W_enc: { access: "read", dtype: "f32", shape: ["entries", "d_model"] },
    W_dec: { access: "read", dtype: "f32", shape: ["entries", "d_model"] },
    entry: { access: "read", dtype: "u32", shape: ["entries", 4] },
    ranges: { access: "read", dtype: "u32", shape: ["T", 2] },
    x: { access: "read_write", dtype: "f32", shape: ["T", "d_model"] },
  },
  uniforms: { T: "u32", d_model: "u32" },
  workgroups: ({ T }) => grid(T),
});
