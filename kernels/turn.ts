import { defineKernel } from "../gpu/mod.ts";
import wgsl from "./turn.wgsl" with { type: "text" };

/** The transpose of a matrix; both sizes are multiples of 4. */
export const turn = defineKernel({
  name: "turn",
  wgsl,
  bindings: {
    x: { access: "read", dtype: "f32", shape: ["rows", "columns"] },
    y: { access: "read_write", dtype: "f32", shape: ["columns", "rows"] },
  },
  uniforms: { rows: "u32", columns: "u32" },
  workgroups: ({ rows, columns }) => [
    Math.ceil(columns / 64),
    Math.ceil(rows / 16),
    1,
  ],
});
