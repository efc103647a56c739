/**
 * What the attention kernels have in common.
 * @module
 */

/**
 * What they read. A block is a run of tokens that follow each other in one row of
 * the cache: first token, tokens, row, position of the first.
 */
export const ATTENTION_INPUTS = {
  q: { access: "read", dtype: "f32", shape: ["T", "d_q"] },
  K: { access: "read", dtype: "f32", shape: ["slots", "d_kv"] },
  V: { access: "read", dtype: "f32", shape: ["slots", "d_kv"] },
  blocks: { access: "read", dtype: "u32", shape: ["n_blocks", 4] },
  pages: { access: "read", dtype: "u32", shape: ["rows", "pages_per_row"] },
} as const;

/** What those read and write that can leave it to {@link attentionJoin} to join parts of the keys. */
export const PART_BINDINGS = {
  ...ATTENTION_INPUTS,
  sums: { access: "read_write", dtype: "f32", shape: ["n_sums", "d_sum"] },
} as const;

/** Uniforms of those. */
export const PART_UNIFORMS = {
  n_blocks: "u32",
  d_q: "u32",
  d_kv: "u32",
  pages_per_row: "u32",
  n_parts: "u32",
  part_keys: "u32",
  scale: "f32",
} as const;
