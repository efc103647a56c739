/**
 * What all attention kernels read and write. A block is a run of tokens that follow
 * each other in one row of the cache: first token, tokens, row, position of the first.
 */
export const ATTENTION_BINDINGS = {
  q: { access: "read", dtype: "f32", shape: ["T", "d_q"] },
  K: { access: "read", dtype: "f32", shape: ["slots", "d_kv"] },
  V: { access: "read", dtype: "f32", shape: ["slots", "d_kv"] },
  blocks: { access: "read", dtype: "u32", shape: ["n_blocks", 4] },
  pages: { access: "read", dtype: "u32", shape: ["rows", "pages_per_row"] },
  z: { access: "read_write", dtype: "f32", shape: ["T", "d_q"] },
} as const;
