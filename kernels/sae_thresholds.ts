import { defineKernel, grid } from "../gpu/mod.ts";
import wgsl from "./sae_thresholds.wgsl" with { type: "text" };

/** Thresholds of a jumprelu from their logarithms. */
export const saeThresholds = defineKernel({
  name: "sae_thresholds",
  wgsl,
  bindings: {
    log_thresholds: { access: "read", dtype: "f32", shape: ["window"] },
    thresholds: { access: "read_write", dtype: "f32", shape: ["window"] },
  },
  uniforms: { window: "u32" },
  workgroups: ({ window }) => grid(Math.ceil(window / 64)),
});
