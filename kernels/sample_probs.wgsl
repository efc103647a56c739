// probs[r, v] = what tokens are drawn by: the weight of what is kept, over the mass of it
// Greedy rows give all to the first largest logit; rows without a distribution become NaN.
// One thread per token; needs sample_words.wgsl.
@group(0) @binding(0) var<storage, read> logits: array<u32>;         // [R, vocab], f32 bits
@group(0) @binding(1) var<storage, read> settings: array<vec4<u32>>; // [R, 2]
@group(0) @binding(2) var<storage, read> rows: array<vec4<u32>>;     // [R]: top, its token, least, mass
@group(0) @binding(3) var<storage, read_write> probs: array<u32>;    // [R, vocab], f32 bits
struct Uniforms { R: u32, vocab: u32 }
@group(0) @binding(4) var<uniform> u: Uniforms;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n_wg: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
  let i = (wg.y * n_wg.x + wg.x) * 64u + lane;
  let r = i / u.vocab;
  if (r >= u.R) { return; }
  let state = rows[r];
  let temperature = bitcast<f32>(settings[2u * r].x);
  let word = ordered(logits[i]);
  var p = 0.0;
  if (temperature < SMALLEST_TEMPERATURE) {
    p = select(0.0, 1.0, i - r * u.vocab == state.y);
  } else if (word >= state.z) {
    p = weight_of(word, state.x, temperature) / bitcast<f32>(state.w);
  }
  probs[i] = select(bitcast<u32>(p), 0x7fc00000u, is_faulty(state.x));
}
