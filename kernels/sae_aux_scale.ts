import { defineKernel } from "../gpu/mod.ts";
import reduce from "./reduce.wgsl" with { type: "text" };
import wgsl from "./sae_aux_scale.wgsl" with { type: "text" };

/** AuxK's loss, and the factor of its gradient. */
export const saeAuxScale = defineKernel({
  name: "sae_aux_scale",
  wgsl,
  helpers: [reduce],
  bindings: {
    mean: { access: "read", dtype: "f32", shape: ["d_model"] },
    squares: { access: "read", dtype: "f32", shape: ["n_squares", 4] },
    row_start: { access: "read", dtype: "u32", shape: ["n_starts"] },
    aux: { access: "read_write", dtype: "f32", shape: [4] },
  },
  uniforms: {
    d_model: "u32",
    n_squares: "u32",
    n_starts: "u32",
    B: "u32",
    most: "u32",
    adds: "u32",
    factor: "f32",
    share: "f32",
  },
  workgroups: () => [1, 1, 1],
});
