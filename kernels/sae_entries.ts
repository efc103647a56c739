import { defineKernel } from "../gpu/mod.ts";
import wgsl from "./sae_entries.wgsl" with { type: "text" };

/** Lists the entries of a window, by row. */
export const saeEntries = defineKernel({
  name: "sae_entries",
  wgsl,
  bindings: {
    acts: { access: "read", dtype: "f32", shape: ["B", "window"] },
    tile_masks: { access: "read", dtype: "u32", shape: ["n_tiles", "B"] },
    tile_starts: { access: "read", dtype: "u32", shape: ["n_tiles", "B"] },
    row_start: { access: "read", dtype: "u32", shape: ["n_starts"] },
    entries: { access: "read_write", dtype: "u32", shape: ["capacity", 2] },
    entry_rows: { access: "read_write", dtype: "u32", shape: ["n_groups"] },
  },
  uniforms: {
    B: "u32",
    window: "u32",
    n_tiles: "u32",
    width: "u32",
    tile0: "u32",
    start: "u32",
  },
  workgroups: (
    { B, window, width },
  ) => [Math.ceil(B / 64), Math.ceil(window / width), 1],
});
