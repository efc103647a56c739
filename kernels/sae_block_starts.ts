import { defineKernel } from "../gpu/mod.ts";
import wgsl from "./sae_block_starts.wgsl" with { type: "text" };

/** Turns the counts of blocks into starts. */
export const saeBlockStarts = defineKernel({
  name: "sae_block_starts",
  wgsl,
  bindings: {
    blocks: { access: "read_write", dtype: "u32", shape: ["n_blocks"] },
  },
  uniforms: { n_blocks: "u32" },
  workgroups: () => [1, 1, 1],
});
