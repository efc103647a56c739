import { defineKernel } from "../gpu/mod.ts";
import reduce from "./reduce.wgsl" with { type: "text" };
import wgsl from "./sae_rows.wgsl" with { type: "text" };

/** How many rows of partial sums {@link saeRows} writes. */
export function rowParts(B: number): number {
  return Math.ceil(B / 64);
}

/** Where each tile's entries start within their row, and what the tiles add up to. */
export const saeRows = defineKernel({
  name: "sae_rows",
  wgsl,
  helpers: [reduce],
  bindings: {
    tile_masks: { access: "read", dtype: "u32", shape: ["n_tiles", "B"] },
    tile_sums: { access: "read", dtype: "f32", shape: ["n_tiles", "B"] },
    tile_starts: {
      access: "read_write",
      dtype: "u32",
      shape: ["n_tiles", "B"],
    },
    row_entries: { access: "read_write", dtype: "u32", shape: ["B"] },
    partials: { access: "read_write", dtype: "f32", shape: ["n_partials", 4] },
  },
  uniforms: { n_tiles: "u32", B: "u32", slot: "u32" },
  workgroups: ({ B }) => [rowParts(B), 1, 1],
});
