import { defineKernel, grid } from "../gpu/mod.ts";
import wgsl from "./qk_norm_rope.wgsl" with { type: "text" };
import reduce from "./reduce.wgsl" with { type: "text" };

/**
 * Norms queries and keys over their whole projections, turns them by their
 * positions, and files keys and values where the cache's pages say.
 * Source: Hugging Face `Olmo2Attention`, `apply_rotary_pos_emb`.
 */
export const qkNormRope = defineKernel({
  name: "qk_norm_rope",
  wgsl,
  helpers: [reduce],
  bindings: {
    qkv: { access: "read", dtype: "f32", shape: ["T", "d_qkv"] },
    qk_norm: { access: "read", dtype: "f32", shape: ["d_qk"] },
    rope: { access: "read", dtype: "f32", shape: ["positions", "d_head"] },
    places: { access: "read", dtype: "u32", shape: ["T", 2] },
    pages: { access: "read", dtype: "u32", shape: ["rows", "pages_per_row"] },
    q: { access: "read_write", dtype: "f32", shape: ["T", "d_q"] },
    K: { access: "read_write", dtype: "f32", shape: ["slots", "d_kv"] },
    V: { access: "read_write", dtype: "f32", shape: ["slots", "d_kv"] },
  },
  consts: ["PAGE_TOKENS"],
  uniforms: {
    T: "u32",
    d_q: "u32",
    d_kv: "u32",
    d_head: "u32",
    pages_per_row: "u32",
    eps: "f32",
  },
  workgroups: ({ T }) => grid(T),
});
