import { defineKernel } from "../gpu/mod.ts";
import wgsl from "./turn_bf16.wgsl" with { type: "text" };

/** The transpose of a matrix of packed bf16; both sizes are multiples of 8. */
export const turnBf16 = defineKernel({
  name: "turn_bf16",
  wgsl,
  bindings: {
    x: { access: "read", dtype: "bf16", shape: ["rows", "columns"] },
    y: { access: "read_write", dtype: "bf16", shape: ["columns", "rows"] },
  },
  uniforms: { rows: "u32", columns: "u32" },
  workgroups: ({ rows, columns }) => [
    Math.ceil(columns / 128),
    Math.ceil(rows / 32),
    1,
  ],
});
