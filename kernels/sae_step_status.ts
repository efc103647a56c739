import { defineKernel } from "../gpu/mod.ts";
import reduce from "./reduce.wgsl" with { type: "text" };
import wgsl from "./sae_step_status.wgsl" with { type: "text" };

/**
 * Words of a status: loss, mse, sparsity, entries per vector, gradient norm and clip factor as f32 bits;
 * bad step + 1 and what was bad in it; AuxK's loss as f32 bits; path of the last batch; dead features; one idle.
 */
export const STATUS_WORDS = 12;

/** Loss, its parts, gradient norm and clip factor of one step, and the sticky flag of a bad one. */
export const saeStepStatus = defineKernel({
  name: "sae_step_status",
  wgsl,
  helpers: [reduce],
  bindings: {
    partials: { access: "read", dtype: "f32", shape: ["n_partials", 4] },
    aux: { access: "read", dtype: "f32", shape: [4] },
    branch: { access: "read", dtype: "u32", shape: [1] },
    dead: { access: "read", dtype: "u32", shape: [1] },
    status: { access: "read_write", dtype: "u32", shape: [STATUS_WORDS] },
  },
  uniforms: {
    n_partials: "u32",
    rows: "u32",
    step: "u32",
    lambda: "f32",
    aux_weight: "f32",
    max_norm: "f32",
  },
  workgroups: () => [1, 1, 1],
});
