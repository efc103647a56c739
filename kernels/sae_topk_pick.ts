import { defineKernel, grid } from "../gpu/mod.ts";
import wgsl from "./sae_topk_pick.wgsl" with { type: "text" };

/** Takes the next digit of the k-th largest activation from the counts; see `selectTopK`. */
export const saeTopKPick = defineKernel({
  name: "sae_topk_pick",
  wgsl,
  bindings: {
    counts: { access: "read_write", dtype: "u32", shape: ["slots", 256] },
    found: { access: "read_write", dtype: "u32", shape: ["slots", 2] },
  },
  uniforms: { slots: "u32", shift: "u32", k: "u32", all_or_none: "u32" },
  workgroups: ({ slots }) => grid(slots),
});
