// Elements of a buffer of 32-bit floats that is bound as words.
const PER_WORD = 1u;
fn unpack(word: u32, part: u32) -> f32 { return bitcast<f32>(word); }
