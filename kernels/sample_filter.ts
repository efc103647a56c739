import { defineKernel, grid } from "../gpu/mod.ts";
import wgsl from "./sample_filter.wgsl" with { type: "text" };

/**
 * Turns logits into the probabilities that tokens are drawn with; tokens left out
 * have 0. A row with a NaN or +∞ becomes NaN. A row's settings are temperature, top_p and
 * min_p (f32 bits), top_k (0 keeps all), and what `sample_pick` reads. Source: Hugging Face
 * `TemperatureLogitsWarper`, `TopKLogitsWarper`, `TopPLogitsWarper`, `MinPLogitsWarper`, in this order.
 */
export const sampleFilter = defineKernel({
  name: "sample_filter",
  wgsl,
  bindings: {
    logits: { access: "read", dtype: "f32", shape: ["R", "vocab"] },
    settings: { access: "read", dtype: "u32", shape: ["R", 8] },
    probs: { access: "read_write", dtype: "f32", shape: ["R", "vocab"] },
  },
  uniforms: { R: "u32", vocab: "u32" },
  workgroups: ({ R }) => grid(R),
});
