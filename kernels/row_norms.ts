import { defineKernel, grid } from "../gpu/mod.ts";
import reduce from "./reduce.wgsl" with { type: "text" };
import wgsl from "./row_norms.wgsl" with { type: "text" };

/** Euclidean norm of each row. */
export const rowNorms = defineKernel({
  name: "row_norms",
  wgsl,
  helpers: [reduce],
  bindings: {
    W: { access: "read", dtype: "f32", shape: ["rows", "columns"] },
    norms: { access: "read_write", dtype: "f32", shape: ["rows"] },
  },
  uniforms: { rows: "u32", columns: "u32" },
  workgroups: ({ rows }) => grid(rows),
});
