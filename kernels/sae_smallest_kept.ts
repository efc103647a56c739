import { defineKernel } from "../gpu/mod.ts";
import wgsl from "./sae_smallest_kept.wgsl" with { type: "text" };
import { STATUS_WORDS } from "./sae_step_status.ts";

/** Moving average of the smallest activation that a selection keeps: the threshold for inference. */
export const saeSmallestKept = defineKernel({
  name: "sae_smallest_kept",
  wgsl,
  bindings: {
    thresholds: { access: "read", dtype: "u32", shape: ["slots", 2] },
    status: { access: "read", dtype: "u32", shape: [STATUS_WORDS] },
    average: { access: "read_write", dtype: "f32", shape: [1] },
  },
  uniforms: { slots: "u32", decay: "f32", rest: "f32" },
  workgroups: () => [1, 1, 1],
});
