import { defineKernel, grid } from "../gpu/mod.ts";
import wgsl from "./gather_words.wgsl" with { type: "text" };

/** Picks rows of words out of one window of a tensor; rows of other windows stay as they are. */
export const gatherWords = defineKernel({
  name: "gather_words",
  wgsl,
  bindings: {
    source: { access: "read", dtype: "u32", shape: ["rows_here", "words"] },
    rows: { access: "read", dtype: "u32", shape: ["n"] },
    picked: { access: "read_write", dtype: "u32", shape: ["n", "words"] },
  },
  uniforms: { n: "u32", words: "u32", first: "u32", rows_here: "u32" },
  workgroups: ({ n, words }) => grid(Math.ceil(n * words / 64)),
});
