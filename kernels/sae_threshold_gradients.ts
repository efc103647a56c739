import { defineKernel } from "../gpu/mod.ts";
import wgsl from "./sae_threshold_gradients.wgsl" with { type: "text" };

/**
 * Gradient of a jumprelu's thresholds, from all activations of a window.
 * Source: Rajamanoharan et al. 2024, "Jumping Ahead".
 */
export const saeThresholdGradients = defineKernel({
  name: "sae_threshold_gradients",
  wgsl,
  bindings: {
    acts: { access: "read", dtype: "f32", shape: ["B", "window"] },
    thresholds: { access: "read", dtype: "f32", shape: ["window"] },
    touched: { access: "read", dtype: "u32", shape: ["window"] },
    dact: { access: "read_write", dtype: "f32", shape: ["B", "window"] },
    dlog: { access: "read_write", dtype: "f32", shape: ["window"] },
  },
  uniforms: { B: "u32", window: "u32", bandwidth: "f32", weight: "f32" },
  workgroups: ({ window }) => [Math.ceil(window / 64), 1, 1],
});
