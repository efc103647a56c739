import { defineKernel } from "../gpu/mod.ts";
import wgsl from "./read_speed.wgsl" with { type: "text" };

/** Reads a packed matrix and sums it: how fast memory is read. */
export const readSpeed = defineKernel({
  name: "read_speed",
  wgsl,
  bindings: {
    x: { access: "read", dtype: "bf16", shape: ["rows", "columns"] },
    sums: { access: "read_write", dtype: "u32", shape: ["groups", "LANES"] },
  },
  overrides: ["LANES"],
  uniforms: { columns: "u32" },
  workgroups: ({ groups }) => [groups, 1, 1],
});
