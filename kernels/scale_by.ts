import { defineKernel, grid } from "../gpu/mod.ts";
import wgsl from "./scale_by.wgsl" with { type: "text" };

/** Multiplies values by a number that the GPU found. */
export const scaleBy = defineKernel({
  name: "scale_by",
  wgsl,
  bindings: {
    factor: { access: "read", dtype: "f32", shape: ["n_factors"] },
    values: { access: "read_write", dtype: "f32", shape: ["n"] },
  },
  uniforms: { n: "u32" },
  workgroups: ({ n }) => grid(Math.ceil(n / 64)),
});
