import { defineKernel, grid } from "../gpu/mod.ts";
import wgsl from "./adam_q8.wgsl" with { type: "text" };
import reduce from "./reduce.wgsl" with { type: "text" };
import { STATUS_WORDS } from "./sae_step_status.ts";

/** Neighbors of a row that share a scale for each moment. */
export const Q8_BLOCK = 256;

/**
 * Adam with its moments in blocks of 8-bit codes: a quarter of the memory.
 * Source of the idea: Dettmers et al. 2022, "8-bit Optimizers via Block-wise Quantization".
 */
export const adamQ8 = defineKernel({
  name: "adam_q8",
  wgsl,
  helpers: [reduce],
  bindings: {
    grad: { access: "read", dtype: "f32", shape: ["rows", "columns"] },
    touched: { access: "read", dtype: "u32", shape: ["rows"] },
    status: { access: "read", dtype: "u32", shape: [STATUS_WORDS] },
    m: { access: "read_write", dtype: "u32", shape: ["rows", "words"] },
    v: { access: "read_write", dtype: "u32", shape: ["rows", "words"] },
    scales: { access: "read_write", dtype: "f32", shape: ["rows", "n_scales"] },
    W: { access: "read_write", dtype: "f32", shape: ["rows", "columns"] },
  },
  uniforms: {
    rows: "u32",
    words: "u32",
    start: "u32",
    step: "u32",
    beta1: "f32",
    rest1: "f32",
    beta2: "f32",
    rest2: "f32",
    step_size: "f32",
    v_scale: "f32",
    eps: "f32",
  },
  workgroups: ({ rows, words }) => grid(rows * Math.ceil(words / 64)),
});
