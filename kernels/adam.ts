import { defineKernel, grid } from "../gpu/mod.ts";
import wgsl from "./adam.wgsl" with { type: "text" };
import { STATUS_WORDS } from "./sae_step_status.ts";

/**
 * One step of Adam on one tensor, with the clip factor that the GPU found.
 * Source: Kingma and Ba 2015; `eps` where PyTorch adds it.
 */
export const adam = defineKernel({
  name: "adam",
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
  workgroups: ({ rows, columns }) => grid(Math.ceil(rows * columns / 64)),
});
