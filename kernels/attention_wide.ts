import { defineKernel, grid } from "../gpu/mod.ts";
import { PART_BINDINGS, PART_UNIFORMS } from "./attention_bindings.ts";
import wgsl from "./attention_wide.wgsl" with { type: "text" };

/** One workgroup per token, key-value head and part of its keys: for few tokens on a graphics card. */
export const attentionWide = defineKernel({
  name: "attention_wide",
  wgsl,
  bindings: PART_BINDINGS,
  consts: ["D4", "PAGE_TOKENS", "HEADS", "IS_PART"],
  uniforms: PART_UNIFORMS,
  workgroups: ({ n_blocks, d_q, D4, HEADS, n_parts }) =>
    grid(n_blocks * d_q / (4 * D4 * HEADS) * n_parts),
});
