// x[t, :] += sum_e delta_e · W_dec[e, :]     over the entries e in [ranges[t].x, ranges[t].y)
// Decoding the changed activations and keeping the reconstruction error is this rank-k update; b_dec cancels.
//   act = pre > threshold ? pre : 0 with pre = W_enc[e] · x[t] + b_enc[e]; a threshold of 0 is relu, NO_THRESHOLD is linear
//   delta = value - act (clamp) | value (add) | max(act, value) - act (min) | act · (value - 1) (scale)
// One workgroup of 64 per token; all activations are taken before any update. Needs reduce.wgsl.
@group(0) @binding(0) var<storage, read> W_enc: array<f32>;         // [entries, d_model]
@group(0) @binding(1) var<storage, read> W_dec: array<f32>;         // [entries, d_model]
@group(0) @binding(2) var<storage, read> entry: array<vec4<u32>>;   // [entries]: b_enc, mode, value, threshold, all but the mode as f32 bits
@group(0) @binding(3) var<storage, read> ranges: array<vec2<u32>>;  // [T]: first entry, one past the last
@group(0) @binding(4) var<storage, read_write> x: array<f32>;       // [T, d_model]
struct Uniforms { T: u32, d_model: u32 }
@group(0) @binding(5) var<uniform> u: Uniforms;

const MAX_ENTRIES = 256u;
var<workgroup> delta: array<f32, MAX_ENTRIES>;

fn change(act: f32, mode: u32, value: f32) -> f32 {
  switch mode {
    case 0u: { return value - act; }
    case 1u: { return value; }
    case 2u: { return max(act, value) - act; }
    default: { return act * (value - 1.0); }
  }
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n_wg: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
  let t = wg.y * n_wg.x + wg.x;
  if (t >= u.T) { return; }
  let range = ranges[t];
  if (range.x >= range.y) { return; }
  let row = t * u.d_model;
  for (var e = range.x; e < range.y; e++) {
    var products = 0.0;
    for (var j = lane; j < u.d_model; j += 64u) { products += W_enc[e * u.d_model + j] * x[row + j]; }
    let pre = sum_lanes(products, lane) + bitcast<f32>(entry[e].x);
    let act = select(pre, 0.0, pre <= bitcast<f32>(entry[e].w)); // NaN is not below, and stays
    if (lane == 0u) { delta[e - range.x] = change(act, entry[e].y, bitcast<f32>(entry[e].z)); }
  }
  workgroupBarrier();
  for (var j = lane; j < u.d_model; j += 64u) {
    var sum = x[row + j];
    for (var e = range.x; e < range.y; e++) { sum += delta[e - range.x] * W_dec[e * u.d_model + j]; }
    x[row + j] = sum;
  }
}
