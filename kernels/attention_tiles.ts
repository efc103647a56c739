import { defineKernel } from "../gpu/mod.ts";
import { ATTENTION_INPUTS } from "./attention_bindings.ts";
import wgsl from "./attention_tiles.wgsl" with { type: "text" };

/** Most tokens of a block. */
export const TILE_TOKENS = 64;

/** One workgroup per head and block of tokens, which share its keys: for many tokens on a graphics card. */
export const attentionTiles = defineKernel({
  name: "attention_tiles",
  wgsl,
  bindings: {
    ...ATTENTION_INPUTS,
    z: { access: "read_write", dtype: "f32", shape: ["T", "d_q"] },
  },
  consts: ["D4", "PAGE_TOKENS"],
  uniforms: { d_q: "u32", d_kv: "u32", pages_per_row: "u32", scale: "f32" },
  workgroups: ({ n_blocks, d_q, D4 }) => [n_blocks, d_q / (4 * D4), 1],
});
