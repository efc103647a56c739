import { defineKernel, grid } from "../gpu/mod.ts";
import { ATTENTION_BINDINGS } from "./attention_bindings.ts";
import wgsl from "./attention_wide.wgsl" with { type: "text" };

const { z: _, ...inputs } = ATTENTION_BINDINGS;

/** One workgroup per token, key-value head and part of its keys: for few tokens on a graphics card. */
export const attentionWide = defineKernel({
  name: "attention_wide",
  wgsl,
  bindings: {
    ...inputs,
    parts: { access: "read_write", dtype: "f32", shape: ["n_sums", "d_part"] },
  },
  consts: ["D4", "PAGE_TOKENS", "HEADS"],
  uniforms: {
    n_blocks: "u32",
    d_q: "u32",
    d_kv: "u32",
    pages_per_row: "u32",
    n_parts: "u32",
    part_keys: "u32",
    scale: "f32",
  },
  workgroups: ({ n_blocks, d_q, D4, HEADS, n_parts }) =>
    grid(n_blocks * d_q / (4 * D4 * HEADS) * n_parts),
});
