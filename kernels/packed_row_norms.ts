import { defineKernel, grid } from "../gpu/mod.ts";
import reduce from "./reduce.wgsl" with { type: "text" };
import wgsl from "./packed_row_norms.wgsl" with { type: "text" };

/** Euclidean norm of each row of bf16 in whole words; -1 where a value is not finite. */
export const packedRowNorms = defineKernel({
  name: "packed_row_norms",
  wgsl,
  helpers: [reduce],
  bindings: {
    packed: { access: "read", dtype: "u32", shape: ["n", "words"] },
    norms: { access: "read_write", dtype: "f32", shape: ["n"] },
  },
  uniforms: { n: "u32", words: "u32" },
  workgroups: ({ n }) => grid(n),
});
