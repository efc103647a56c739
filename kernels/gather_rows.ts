import { defineKernel, grid } from "../gpu/mod.ts";
import wgsl from "./gather_rows.wgsl" with { type: "text" };

/** Picks rows, for example each sequence's last token: y[i] = x[rows[i]]. */
export const gatherRows = defineKernel({
  name: "gather_rows",
  wgsl,
  bindings: {
    x: { access: "read", dtype: "f32", shape: ["T", "d_model"] },
    rows: { access: "read", dtype: "u32", shape: ["n"] },
    y: { access: "read_write", dtype: "f32", shape: ["n", "d_model"] },
  },
  uniforms: { n: "u32", d_model: "u32" },
  workgroups: ({ n, d_model }) => grid(Math.ceil(n * d_model / 64)),
});
