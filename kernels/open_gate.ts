import { defineKernel, GATE_WORDS } from "../gpu/mod.ts";
import wgsl from "./open_gate.wgsl" with { type: "text" };

/** Lets the gated launches of one branch take place, and no others; the last of `counts` is the number of items. */
export const openGate = defineKernel({
  name: "open_gate",
  wgsl,
  bindings: {
    branch: { access: "read", dtype: "u32", shape: [1] },
    counts: { access: "read", dtype: "u32", shape: ["n_counts"] },
    wanted: { access: "read", dtype: "u32", shape: ["n", GATE_WORDS] },
    allowed: { access: "read_write", dtype: "u32", shape: ["n", GATE_WORDS] },
  },
  uniforms: { n: "u32", n_counts: "u32" },
  workgroups: ({ n }) => [Math.ceil(n / 64), 1, 1],
});
