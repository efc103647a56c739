// dacts[e] = mean * sum_j err[b, j] * W_dec[feature_e, j] + weight * weights[feature_e]
// for the entries e of the window, 4 of one row b at a time. d_model is a multiple of 4.
// One invocation per 4 entries: fast where an invocation is a SIMD lane (software drivers).
@group(0) @binding(0) var<storage, read> entries: array<vec2<u32>>;  // [capacity]: feature, act
@group(0) @binding(1) var<storage, read> entry_rows: array<u32>;     // [n_groups], n_groups = capacity / 4
@group(0) @binding(2) var<storage, read> row_start: array<u32>;      // [n_starts]; the last one is the number of entries
@group(0) @binding(3) var<storage, read> err: array<vec4<f32>>;      // [B, d_model]
@group(0) @binding(4) var<storage, read> W_dec: array<vec4<f32>>;    // [window, d_model]
@group(0) @binding(5) var<storage, read> weights: array<f32>;        // [window]
@group(0) @binding(6) var<storage, read_write> dacts: array<f32>;    // [n_dacts]
struct Uniforms { n_starts: u32, n_groups: u32, d_model: u32, window: u32, start: u32, mean: f32, weight: f32 }
@group(0) @binding(7) var<uniform> u: Uniforms;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n_wg: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
  let g = (wg.y * n_wg.x + wg.x) * 64u + lane;
  let e = 4u * g;
  if (e >= row_start[u.n_starts - 1u]) { return; }
  let n = u.d_model / 4u;
  // A feature outside of the window, or none, wraps around to a large number.
  let f0 = entries[e].x - u.start;
  let f1 = entries[e + 1u].x - u.start;
  let f2 = entries[e + 2u].x - u.start;
  let f3 = entries[e + 3u].x - u.start;
  let last = u.window - 1u;
  let w0 = min(f0, last) * n;
  let w1 = min(f1, last) * n;
  let w2 = min(f2, last) * n;
  let w3 = min(f3, last) * n;
  let row = entry_rows[g] * n;
  var s0 = vec4<f32>();
  var s1 = vec4<f32>();
  var s2 = vec4<f32>();
  var s3 = vec4<f32>();
  for (var j = 0u; j < n; j++) {
    let y = err[row + j];
    s0 = fma(y, W_dec[w0 + j], s0);
    s1 = fma(y, W_dec[w1 + j], s1);
    s2 = fma(y, W_dec[w2 + j], s2);
    s3 = fma(y, W_dec[w3 + j], s3);
  }
  let one = vec4<f32>(1.0);
  if (f0 <= last) { dacts[e] = u.mean * dot(s0, one) + u.weight * weights[f0]; }
  if (f1 <= last) { dacts[e + 1u] = u.mean * dot(s1, one) + u.weight * weights[f1]; }
  if (f2 <= last) { dacts[e + 2u] = u.mean * dot(s2, one) + u.weight * weights[f2]; }
  if (f3 <= last) { dacts[e + 3u] = u.mean * dot(s3, one) + u.weight * weights[f3]; }
}
