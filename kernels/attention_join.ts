import { defineKernel, grid } from "../gpu/mod.ts";
import wgsl from "./attention_join.wgsl" with { type: "text" };

/** Joins what other kernels made of parts of the keys. */
export const attentionJoin = defineKernel({
  name: "attention_join",
  wgsl,
  bindings: {
    sums: { access: "read", dtype: "f32", shape: ["n_sums", "d_sum"] },
    z: { access: "read_write", dtype: "f32", shape: ["T", "d_q"] },
  },
  consts: ["D4"],
  uniforms: { T: "u32", d_q: "u32", n_parts: "u32" },
  workgroups: ({ T, d_q }) => grid(Math.ceil(T * d_q / 4 / 64)),
});
