import { defineKernel, grid } from "../gpu/mod.ts";
import wgsl from "./attention_join.wgsl" with { type: "text" };

/** Joins what {@link attentionWide} made of the parts of each head's keys. */
export const attentionJoin = defineKernel({
  name: "attention_join",
  wgsl,
  bindings: {
    parts: { access: "read", dtype: "f32", shape: ["n_sums", "d_part"] },
    z: { access: "read_write", dtype: "f32", shape: ["T", "d_q"] },
  },
  consts: ["D4"],
  uniforms: { T: "u32", d_q: "u32", n_parts: "u32" },
  workgroups: ({ T, d_q }) => grid(Math.ceil(T * d_q / 4 / 64)),
});
