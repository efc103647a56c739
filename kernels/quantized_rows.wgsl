// Where things lie in a quantized row of K elements, in words, and what they mean. PER_WORD and LEVEL_BITS are the type's.
fn blocks_of(K: u32) -> u32 { return (K + 31u) / 32u; }
fn level_words(K: u32) -> u32 { return blocks_of(K) * 32u / PER_WORD; }
fn row_words(K: u32) -> u32 { return level_words(K) + (blocks_of(K) + 7u) / 8u * 4u; }
// The integer of element k in its word, and the scale of a block in its word.
fn level_in(word: u32, k: u32) -> f32 {
  let at = (k % PER_WORD) * LEVEL_BITS;
  return f32(bitcast<i32>(word << (32u - LEVEL_BITS - at)) >> (32u - LEVEL_BITS));
}
fn scale_in(word: u32, block: u32) -> f32 { return bitcast<f32>((word >> (16u * (block % 2u))) << 16u); }
