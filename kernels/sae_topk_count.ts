import { defineKernel, grid } from "../gpu/mod.ts";
import wgsl from "./sae_topk_count.wgsl" with { type: "text" };
import key from "./sae_topk_key.wgsl" with { type: "text" };

/** Counts the next digit of the activations that may be the k-th largest; see `selectTopK`. */
export const saeTopKCount = defineKernel({
  name: "sae_topk_count",
  wgsl,
  helpers: [key],
  bindings: {
    acts: { access: "read", dtype: "f32", shape: ["T", "window"] },
    marks: { access: "read", dtype: "u32", shape: ["marked"] },
    peaks: { access: "read", dtype: "f32", shape: ["T", "P"] },
    floors: { access: "read", dtype: "u32", shape: ["slots", 2] },
    found: { access: "read", dtype: "u32", shape: ["slots", 2] },
    counts: { access: "read_write", dtype: "u32", shape: ["slots", 256] },
  },
  uniforms: {
    T: "u32",
    window: "u32",
    P: "u32",
    slots: "u32",
    shift: "u32",
    least: "u32",
    has_floors: "u32",
  },
  workgroups: ({ T, P }) => grid(Math.ceil(T * P / 64)),
});
