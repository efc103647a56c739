import { defineKernel, grid } from "../gpu/mod.ts";
import wgsl from "./pack_bf16.wgsl" with { type: "text" };

/** f32 rows to packed bf16, as residual shards store them. */
export const packBf16 = defineKernel({
  name: "pack_bf16",
  wgsl,
  bindings: {
    x: { access: "read", dtype: "f32", shape: ["T", "d_model"] },
    packed: { access: "read_write", dtype: "bf16", shape: ["T", "d_model"] },
  },
  uniforms: { T: "u32", d_model: "u32" },
  workgroups: ({ T, d_model }) => grid(Math.ceil(T * d_model / 128)),
});
