import { defineKernel, grid } from "../gpu/mod.ts";
import wgsl from "./sae_decode_entries.wgsl" with { type: "text" };

/** err = acts·W_dec + b_dec − x from lists of entries, a window of features at a time. */
export const saeDecodeEntries = defineKernel({
  name: "sae_decode_entries",
  wgsl,
  bindings: {
    entries: { access: "read", dtype: "u32", shape: ["capacity", 2] },
    tile_starts: { access: "read", dtype: "u32", shape: ["n_tiles", "B"] },
    row_start: { access: "read", dtype: "u32", shape: ["n_starts"] },
    W_dec: { access: "read", dtype: "f32", shape: ["window", "d_model"] },
    b_dec: { access: "read", dtype: "f32", shape: ["d_model"] },
    x: { access: "read", dtype: "f32", shape: ["B", "d_model"] },
    err: { access: "read_write", dtype: "f32", shape: ["B", "d_model"] },
  },
  overrides: ["LANES"],
  uniforms: {
    B: "u32",
    d_model: "u32",
    n_tiles: "u32",
    start: "u32",
    tile0: "u32",
    tile1: "u32",
    adds: "u32",
  },
  workgroups: ({ B, d_model, LANES }) =>
    grid(B * Math.ceil(d_model / (32 * LANES))),
});
