import { defineKernel, grid } from "../gpu/mod.ts";
import wgsl from "./pack_rows.wgsl" with { type: "text" };

/** Picked f32 rows as bf16, each in whole words, so that rows can be copied one by one. */
export const packRows = defineKernel({
  name: "pack_rows",
  wgsl,
  bindings: {
    x: { access: "read", dtype: "f32", shape: ["T", "d_model"] },
    rows: { access: "read", dtype: "u32", shape: ["n"] },
    packed: { access: "read_write", dtype: "u32", shape: ["n", "words"] },
  },
  uniforms: { n: "u32", d_model: "u32", words: "u32" },
  workgroups: ({ n, words }) => grid(Math.ceil(n * words / 64)),
});
