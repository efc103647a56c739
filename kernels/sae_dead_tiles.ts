import { defineKernel } from "../gpu/mod.ts";
import key from "./sae_topk_key.wgsl" with { type: "text" };
import wgsl from "./sae_dead_tiles.wgsl" with { type: "text" };

/** Entries of AuxK of every row in every tile of features. */
export const saeDeadTiles = defineKernel({
  name: "sae_dead_tiles",
  wgsl,
  helpers: [key],
  bindings: {
    acts: { access: "read", dtype: "f32", shape: ["B", "window"] },
    thresholds: { access: "read", dtype: "u32", shape: ["B", 2] },
    waited: { access: "read", dtype: "u32", shape: ["window"] },
    tile_masks: { access: "read_write", dtype: "u32", shape: ["n_tiles", "B"] },
    tile_sums: { access: "read_write", dtype: "f32", shape: ["n_tiles", "B"] },
  },
  uniforms: {
    B: "u32",
    window: "u32",
    width: "u32",
    tile0: "u32",
    dead_after: "u32",
  },
  workgroups: (
    { B, window, width },
  ) => [Math.ceil(B / 64), Math.ceil(window / width), 1],
});
