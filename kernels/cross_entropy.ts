import { defineKernel, grid } from "../gpu/mod.ts";
import wgsl from "./cross_entropy.wgsl" with { type: "text" };
import reduce from "./reduce.wgsl" with { type: "text" };

/** Negative log-likelihood of each token's successor, in nats; 0 where there is no target. */
export const crossEntropy = defineKernel({
  name: "cross_entropy",
  wgsl,
  helpers: [reduce],
  bindings: {
    logits: { access: "read", dtype: "f32", shape: ["T", "vocab"] },
    targets: { access: "read", dtype: "u32", shape: ["T"] },
    nll: { access: "read_write", dtype: "f32", shape: ["T"] },
  },
  uniforms: { T: "u32", vocab: "u32" },
  workgroups: ({ T }) => grid(T),
});
