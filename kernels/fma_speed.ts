import { defineKernel } from "../gpu/mod.ts";
import wgsl from "./fma_speed.wgsl" with { type: "text" };

/** Multiplies and adds in registers, 128 operations a round and invocation: how fast an adapter computes. */
export const fmaSpeed = defineKernel({
  name: "fma_speed",
  wgsl,
  bindings: { y: { access: "read_write", dtype: "f32", shape: ["n"] } },
  uniforms: { rounds: "u32" },
  workgroups: ({ n }) => [n / 64, 1, 1],
});
