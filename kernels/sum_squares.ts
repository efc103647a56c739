import { defineKernel } from "../gpu/mod.ts";
import reduce from "./reduce.wgsl" with { type: "text" };
import wgsl from "./sum_squares.wgsl" with { type: "text" };

/** How many partial sums {@link sumSquares} makes of `n` values. */
export function squareParts(n: number): number {
  return Math.min(4096, Math.ceil(n / 1024));
}

/** Sum of squares as {@link squareParts} rows of a table of partial sums, from row `slot` on. */
export const sumSquares = defineKernel({
  name: "sum_squares",
  wgsl,
  helpers: [reduce],
  bindings: {
    values: { access: "read", dtype: "f32", shape: ["n"] },
    partials: { access: "read_write", dtype: "f32", shape: ["n_partials", 4] },
  },
  uniforms: { n: "u32", n_parts: "u32", slot: "u32", column: "u32" },
  workgroups: ({ n_parts }) => [n_parts, 1, 1],
});
