import { defineKernel } from "../gpu/mod.ts";
import wgsl from "./column_sums.wgsl" with { type: "text" };

/** Sum of each column over the batch, times a scale; added to what is there where `adds` is 1. */
export const columnSums = defineKernel({
  name: "column_sums",
  wgsl,
  bindings: {
    y: { access: "read", dtype: "f32", shape: ["B", "columns"] },
    sums: { access: "read_write", dtype: "f32", shape: ["columns"] },
  },
  uniforms: { B: "u32", columns: "u32", adds: "u32", scale: "f32" },
  workgroups: ({ columns }) => [Math.ceil(columns / 64), 1, 1],
});
