// Elements of a buffer of f16 pairs: the even one is in the lower half.
const PER_WORD = 2u;
fn unpack(word: u32, part: u32) -> f32 { return unpack2x16float(word)[part]; }
