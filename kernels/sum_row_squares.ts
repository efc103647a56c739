import { defineKernel } from "../gpu/mod.ts";
import reduce from "./reduce.wgsl" with { type: "text" };
import wgsl from "./sum_row_squares.wgsl" with { type: "text" };

/** {@link sumSquares} over the rows that are touched; their length is a multiple of 4. */
export const sumRowSquares = defineKernel({
  name: "sum_row_squares",
  wgsl,
  helpers: [reduce],
  bindings: {
    values: { access: "read", dtype: "f32", shape: ["rows", "columns"] },
    touched: { access: "read", dtype: "u32", shape: ["rows"] },
    partials: { access: "read_write", dtype: "f32", shape: ["n_partials", 4] },
  },
  uniforms: {
    rows: "u32",
    columns: "u32",
    n_parts: "u32",
    slot: "u32",
    column: "u32",
  },
  workgroups: ({ n_parts }) => [n_parts, 1, 1],
});
