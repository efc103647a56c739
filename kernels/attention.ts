import { defineKernel } from "../gpu/mod.ts";
import wgsl from "./attention.wgsl" with { type: "text" };

const bindings = {
  q: { access: "read", dtype: "f32", shape: ["T", "d_q"] },
  K: { access: "read", dtype: "f32", shape: ["slots", "d_kv"] },
  V: { access: "read", dtype: "f32", shape: ["slots", "d_kv"] },
  places: { access: "read", dtype: "u32", shape: ["T", 2] },
  pages: { access: "read", dtype: "u32", shape: ["rows", "pages_per_row"] },
  z: { access: "read_write", dtype: "f32", shape: ["T", "d_q"] },
} as const;
const uniforms = {
  T: "u32",
  d_q: "u32",
  d_kv: "u32",
  pages_per_row: "u32",
  scale: "f32",
} as const;

/** One invocation per (token, head): for many tokens. */
export const attention = defineKernel({
  name: "attention",
  wgsl,
  bindings,
  consts: ["D4", "PAGE_TOKENS"],
  uniforms,
  workgroups: ({ T, d_q, D4 }) => [Math.ceil(T / 64), d_q / (4 * D4), 1],
});
