import { defineKernel, grid } from "../gpu/mod.ts";
import wgsl from "./unpack_rows.wgsl" with { type: "text" };

/** Rows of bf16 in whole words to f32, times a scale. */
export const unpackRows = defineKernel({
  name: "unpack_rows",
  wgsl,
  bindings: {
    packed: { access: "read", dtype: "u32", shape: ["n", "words"] },
    x: { access: "read_write", dtype: "f32", shape: ["n", "d_model"] },
  },
  uniforms: { n: "u32", d_model: "u32", words: "u32", scale: "f32" },
  workgroups: ({ n, words }) => grid(Math.ceil(n * words / 64)),
});
