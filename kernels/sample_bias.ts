import { defineKernel, grid } from "../gpu/mod.ts";
import wgsl from "./sample_bias.wgsl" with { type: "text" };

/**
 * Adds biases to single logits, in place: each is a row of the batch, a token and f32 bits; no
 * pair of row and token twice. A bias of -∞ forbids the token. Logits that are not finite stay as they are.
 */
export const sampleBias = defineKernel({
  name: "sample_bias",
  wgsl,
  bindings: {
    logits: { access: "read_write", dtype: "f32", shape: ["R", "vocab"] },
    biases: { access: "read", dtype: "u32", shape: ["n", 3] },
  },
  uniforms: { n: "u32", vocab: "u32" },
  workgroups: ({ n }) => grid(Math.ceil(n / 64)),
});
