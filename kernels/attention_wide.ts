import { defineKernel } from "../gpu/mod.ts";
import { attention } from "./attention.ts";
import wgsl from "./attention_wide.wgsl" with { type: "text" };
import reduce from "./reduce.wgsl" with { type: "text" };

/** One workgroup per (token, head), lanes across keys: for decoding few tokens on a graphics card. */
export const attentionWide = defineKernel({
  name: "attention_wide",
  wgsl,
  helpers: [reduce],
  bindings: attention.spec.bindings,
  consts: ["D4", "PAGE_TOKENS"],
  uniforms: {
    T: "u32",
    d_q: "u32",
    d_kv: "u32",
    pages_per_row: "u32",
    scale: "f32",
  },
  workgroups: ({ T, d_q, D4 }) => [T, d_q / (4 * D4), 1],
});
