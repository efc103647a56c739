// Elements of a buffer of bf16 pairs: the even one is in the lower half.
const PER_WORD = 2u;
fn unpack(word: u32, part: u32) -> f32 { return bitcast<f32>((word >> (16u * part)) << 16u); }
