import { defineKernel } from "../gpu/mod.ts";
import reduce from "./reduce.wgsl" with { type: "text" };
import wgsl from "./sae_step_status.wgsl" with { type: "text" };

/** Words of a status: four metrics, gradient norm, clip factor, bad step + 1 and what was bad in it. */
export const STATUS_WORDS = 8;

/** Loss, its parts, gradient norm and clip factor of one step, and the sticky flag of a bad one. */
export const saeStepStatus = defineKernel({
  name: "sae_step_status",
  wgsl,
  helpers: [reduce],
  bindings: {
    partials: { access: "read", dtype: "f32", shape: ["n_partials", 4] },
    status: { access: "read_write", dtype: "u32", shape: [STATUS_WORDS] },
  },
  uniforms: {
    n_partials: "u32",
    B: "u32",
    step: "u32",
    lambda: "f32",
    max_norm: "f32",
  },
  workgroups: () => [1, 1, 1],
});
