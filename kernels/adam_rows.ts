import { defineKernel, grid } from "../gpu/mod.ts";
import wgsl from "./adam_rows.wgsl" with { type: "text" };
import { STATUS_WORDS } from "./sae_step_status.ts";

/** {@link adam} for rows whose length is a multiple of 4. */
export const adamRows = defineKernel({
  name: "adam_rows",
  wgsl,
  bindings: {
    grad: { access: "read", dtype: "f32", shape: ["rows", "columns"] },
    touched: { access: "read", dtype: "u32", shape: ["rows"] },
    status: { access: "read", dtype: "u32", shape: [STATUS_WORDS] },
    m: { access: "read_write", dtype: "f32", shape: ["rows", "columns"] },
    v: { access: "read_write", dtype: "f32", shape: ["rows", "columns"] },
    W: { access: "read_write", dtype: "f32", shape: ["rows", "columns"] },
  },
  uniforms: {
    rows: "u32",
    columns: "u32",
    beta1: "f32",
    rest1: "f32",
    beta2: "f32",
    rest2: "f32",
    step_size: "f32",
    v_scale: "f32",
    eps: "f32",
  },
  workgroups: ({ rows, columns }) => grid(Math.ceil(rows * columns / 256)),
});
