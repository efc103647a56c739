// logits[row, token] += bias, for each (row, token, bias)
// One thread per bias. Logits that are not finite stay, so that a faulty row is still known as such.
// Floats are bound as words because drivers may assume that there is no NaN.
@group(0) @binding(0) var<storage, read_write> logits: array<u32>; // [R, vocab], f32 bits
@group(0) @binding(1) var<storage, read> biases: array<u32>;       // [n, 3]: row, token, f32 bits
struct Uniforms { n: u32, vocab: u32 }
@group(0) @binding(2) var<uniform> u: Uniforms;

const INFINITY_BITS = 0x7f800000u;
const NEGATIVE_INFINITY_BITS = 0xff800000u;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n_wg: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
  let i = (wg.y * n_wg.x + wg.x) * 64u + lane;
  if (i >= u.n) { return; }
  let at = biases[3u * i] * u.vocab + biases[3u * i + 1u];
  let bias = biases[3u * i + 2u];
  let logit = logits[at];
  if ((logit & INFINITY_BITS) == INFINITY_BITS) { return; }
  if (bias == NEGATIVE_INFINITY_BITS) { logits[at] = bias; }
  else { logits[at] = bitcast<u32>(bitcast<f32>(logit) + bitcast<f32>(bias)); }
}
