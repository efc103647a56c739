import { defineKernel } from "../gpu/mod.ts";
import wgsl from "./sae_path.wgsl" with { type: "text" };

/** Where each row's entries start, and whether there are few enough of them for the sparse path. */
export const saePath = defineKernel({
  name: "sae_path",
  wgsl,
  bindings: {
    row_entries: { access: "read", dtype: "u32", shape: ["B"] },
    row_start: { access: "read_write", dtype: "u32", shape: ["n_starts"] },
    branch: { access: "read_write", dtype: "u32", shape: [1] },
  },
  uniforms: { B: "u32", limit: "u32" },
  workgroups: () => [1, 1, 1],
});
