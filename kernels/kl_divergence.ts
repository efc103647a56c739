import { defineKernel, grid } from "../gpu/mod.ts";
import wgsl from "./kl_divergence.wgsl" with { type: "text" };
import reduce from "./reduce.wgsl" with { type: "text" };

/** How far the next token's probabilities by `logits_q` are from those by `logits_p`, in nats. */
export const klDivergence = defineKernel({
  name: "kl_divergence",
  wgsl,
  helpers: [reduce],
  bindings: {
    logits_p: { access: "read", dtype: "f32", shape: ["T", "vocab"] },
    logits_q: { access: "read", dtype: "f32", shape: ["T", "vocab"] },
    kl: { access: "read_write", dtype: "f32", shape: ["T"] },
  },
  uniforms: { T: "u32", vocab: "u32" },
  workgroups: ({ T }) => grid(T),
});
