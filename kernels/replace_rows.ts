import { defineKernel, grid } from "../gpu/mod.ts";
import wgsl from "./replace_rows.wgsl" with { type: "text" };

/** Puts other values in the residual stream: an SAE's reconstruction, a mean, or zeros. */
export const replaceRows = defineKernel({
  name: "replace_rows",
  wgsl,
  bindings: {
    source: { access: "read", dtype: "f32", shape: ["rows", "d_model"] },
    places: { access: "read", dtype: "u32", shape: ["T", 2] },
    x: { access: "read_write", dtype: "f32", shape: ["T", "d_model"] },
  },
  uniforms: { T: "u32", d_model: "u32", rows: "u32", first_position: "u32" },
  workgroups: ({ T, d_model }) => grid(Math.ceil(T * d_model / 64)),
});
