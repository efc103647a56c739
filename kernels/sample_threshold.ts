import { defineKernel, grid } from "../gpu/mod.ts";
import words from "./sample_words.wgsl" with { type: "text" };
import wgsl from "./sample_threshold.wgsl" with { type: "text" };

/**
 * The choice of tokens, 4 of 5, for rows with filters: the least logit that they keep. Source: Hugging Face
 * `TemperatureLogitsWarper`, `TopKLogitsWarper`, `TopPLogitsWarper`, `MinPLogitsWarper`, in this order.
 */
export const sampleThreshold = defineKernel({
  name: "sample_threshold",
  wgsl,
  helpers: [words],
  bindings: {
    settings: { access: "read", dtype: "u32", shape: ["R", 8] },
    candidates: { access: "read", dtype: "u32", shape: ["R", "capacity"] },
    n_candidates: { access: "read", dtype: "u32", shape: ["R", 128] },
    left: { access: "read_write", dtype: "u32", shape: ["R", "capacity"] },
    masses: { access: "read_write", dtype: "f32", shape: ["R", 128] },
    rows: { access: "read_write", dtype: "u32", shape: ["R", 4] },
  },
  uniforms: { R: "u32", vocab: "u32" },
  workgroups: ({ R }) => grid(R),
});
