import { defineKernel, grid } from "../gpu/mod.ts";
import wgsl from "./sample_pick.wgsl" with { type: "text" };

/**
 * Draws one token a row from probabilities, by inverse distribution in the order
 * of the tokens. What is drawn depends on the row's own seed and step alone. A row
 * without a distribution (its logits held a NaN) gives 0xffffffff.
 */
export const samplePick = defineKernel({
  name: "sample_pick",
  wgsl,
  bindings: {
    probs: { access: "read", dtype: "f32", shape: ["R", "vocab"] },
    settings: { access: "read", dtype: "u32", shape: ["R", 8] },
    tokens: { access: "read_write", dtype: "u32", shape: ["R"] },
  },
  uniforms: { R: "u32", vocab: "u32" },
  workgroups: ({ R }) => grid(R),
});
