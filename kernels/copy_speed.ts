import { defineKernel } from "../gpu/mod.ts";
import wgsl from "./copy_speed.wgsl" with { type: "text" };

/** Copies a matrix: how fast memory is copied. */
export const copySpeed = defineKernel({
  name: "copy_speed",
  wgsl,
  bindings: {
    x: { access: "read", dtype: "f32", shape: ["rows", 1024] },
    y: { access: "read_write", dtype: "f32", shape: ["rows", 1024] },
  },
  workgroups: ({ rows }) => [rows, 1, 1],
});
