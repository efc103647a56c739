import { defineKernel, grid } from "../gpu/mod.ts";
import wgsl from "./unpack_batch.wgsl" with { type: "text" };

/** Packed bf16 rows to f32, times the input scale. */
export const unpackBatch = defineKernel({
  name: "unpack_batch",
  wgsl,
  bindings: {
    rows: { access: "read", dtype: "bf16", shape: ["B", "d_model"] },
    x: { access: "read_write", dtype: "f32", shape: ["B", "d_model"] },
  },
  uniforms: { B: "u32", d_model: "u32", scale: "f32" },
  workgroups: ({ B, d_model }) => grid(Math.ceil(B * d_model / 128)),
});
