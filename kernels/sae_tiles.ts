import { defineKernel } from "../gpu/mod.ts";
import wgsl from "./sae_tiles.wgsl" with { type: "text" };

/** Entries and weighted sum of every row in every tile of features; for activations that were changed after encoding. */
export const saeTiles = defineKernel({
  name: "sae_tiles",
  wgsl,
  bindings: {
    acts: { access: "read", dtype: "f32", shape: ["B", "window"] },
    weights: { access: "read", dtype: "f32", shape: ["window"] },
    tile_masks: { access: "read_write", dtype: "u32", shape: ["n_tiles", "B"] },
    tile_sums: { access: "read_write", dtype: "f32", shape: ["n_tiles", "B"] },
  },
  uniforms: {
    B: "u32",
    window: "u32",
    width: "u32",
    tile0: "u32",
    counts: "u32",
  },
  workgroups: (
    { B, window, width },
  ) => [Math.ceil(B / 64), Math.ceil(window / width), 1],
});
