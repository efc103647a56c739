import { defineKernel, grid } from "../gpu/mod.ts";
import wgsl from "./row_norms_wide.wgsl" with { type: "text" };

/** {@link rowNorms} for software drivers, of rows whose length is a multiple of 4. */
export const rowNormsWide = defineKernel({
  name: "row_norms_wide",
  wgsl,
  bindings: {
    W: { access: "read", dtype: "f32", shape: ["rows", "columns"] },
    norms: { access: "read_write", dtype: "f32", shape: ["rows"] },
  },
  uniforms: { rows: "u32", columns: "u32" },
  workgroups: ({ rows }) => grid(Math.ceil(rows / 8)),
});
