import { defineKernel, grid } from "../gpu/mod.ts";
import wgsl from "./sae_compact.wgsl" with { type: "text" };

/**
 * Appends the activations of features `[start, start + window)` that are not 0
 * to each row's list: a count, then `cap` features, then their values as f32 bits,
 * width = 1 + 2·cap. A count above `cap` says that the rest was dropped. Run the windows in order, from feature 0.
 */
export const saeCompact = defineKernel({
  name: "sae_compact",
  wgsl,
  bindings: {
    acts: { access: "read", dtype: "f32", shape: ["T", "window"] },
    lists: { access: "read_write", dtype: "u32", shape: ["T", "width"] },
  },
  uniforms: { T: "u32", window: "u32", width: "u32", start: "u32" },
  workgroups: ({ T }) => grid(T),
});
