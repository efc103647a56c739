// x = logits[row, v], count = how often v was generated, of each row that has penalties:
//   x = x / repetition where x > 0, x · repetition elsewhere     if v is in the prompt or the reply
//   x = x - presence - frequency · count                         if v is in the reply
// One thread per token of a row. Logits that are not finite stay, so that a faulty row is still
// known as such. Floats are bound as words because drivers may assume that there is no NaN.
@group(0) @binding(0) var<storage, read_write> logits: array<u32>; // [R, vocab], f32 bits
@group(0) @binding(1) var<storage, read> penalties: array<u32>;    // [n, 5]: row, row of counts, 3 as f32 bits
@group(0) @binding(2) var<storage, read> counts: array<u32>;       // [rows, vocab]: top bit is "in the prompt"
struct Uniforms { n: u32, vocab: u32 }
@group(0) @binding(3) var<uniform> u: Uniforms;

const INFINITY_BITS = 0x7f800000u;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n_wg: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
  let n_blocks = (u.vocab + 255u) / 256u;
  let block = wg.y * n_wg.x + wg.x;
  let i = block / n_blocks;
  let v = (block % n_blocks) * 256u + lane;
  if (i >= u.n || v >= u.vocab) { return; }
  let seen = counts[penalties[5u * i + 1u] * u.vocab + v];
  let at = penalties[5u * i] * u.vocab + v;
  let bits = logits[at];
  if (seen == 0u || (bits & INFINITY_BITS) == INFINITY_BITS) { return; }
  let repetition = bitcast<f32>(penalties[5u * i + 2u]);
  let presence = bitcast<f32>(penalties[5u * i + 3u]);
  let frequency = bitcast<f32>(penalties[5u * i + 4u]);
  var x = bitcast<f32>(bits);
  if (x > 0.0) { x /= repetition; } else { x *= repetition; }
  let count = seen & 0x7fffffffu;
  if (count > 0u) { x -= presence + frequency * f32(count); }
  logits[at] = bitcast<u32>(x);
}
