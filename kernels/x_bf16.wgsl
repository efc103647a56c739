// Group i of 4 values of x, which is bound as pairs of words: packed bf16, the even element in the lower half.
fn x_at(i: u32) -> vec4<f32> {
  let words = x[i];
  return bitcast<vec4<f32>>(vec4<u32>(words.x << 16u, words.x & 0xffff0000u, words.y << 16u, words.y & 0xffff0000u));
}
