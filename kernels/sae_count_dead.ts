import { defineKernel, grid } from "../gpu/mod.ts";
import wgsl from "./sae_count_dead.wgsl" with { type: "text" };

/** Adds the features that have waited too long to a count. */
export const saeCountDead = defineKernel({
  name: "sae_count_dead",
  wgsl,
  bindings: {
    waited: { access: "read", dtype: "u32", shape: ["window"] },
    dead: { access: "read_write", dtype: "u32", shape: [1] },
  },
  uniforms: { window: "u32", dead_after: "u32" },
  workgroups: ({ window }) => grid(Math.ceil(window / 64)),
});
