// dacts[e] = mean * sum_j err[b, j] * W_dec[feature_e, j] + weight * weights[feature_e]
// for the entries e of the window, 4 of one row b at a time. d_model is a multiple of 4.
// One workgroup of 64 per 4 entries, lanes along the columns: fast where neighbors should load neighbors (graphics cards).
@group(0) @binding(0) var<storage, read> entries: array<vec2<u32>>;  // [capacity]: feature, act
@group(0) @binding(1) var<storage, read> entry_rows: array<u32>;     // [n_groups], n_groups = capacity / 4
@group(0) @binding(2) var<storage, read> row_start: array<u32>;      // [n_starts]; the last one is the number of entries
@group(0) @binding(3) var<storage, read> err: array<vec4<f32>>;      // [B, d_model]
@group(0) @binding(4) var<storage, read> W_dec: array<vec4<f32>>;    // [window, d_model]
@group(0) @binding(5) var<storage, read> weights: array<f32>;        // [window]
@group(0) @binding(6) var<storage, read_write> dacts: array<f32>;    // [n_dacts]
struct Uniforms { n_starts: u32, n_groups: u32, d_model: u32, window: u32, start: u32, mean: f32, weight: f32 }
@group(0) @binding(7) var<uniform> u: Uniforms;

var<workgroup> sums: array<vec4<f32>, 64>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n_wg: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
  let g = wg.y * n_wg.x + wg.x;
  let e = 4u * g;
  if (e >= row_start[u.n_starts - 1u]) { return; }
  let n = u.d_model / 4u;
  let last = u.window - 1u;
  // A feature outside of the window, or none, wraps around to a large number.
  let features = vec4<u32>(entries[e].x, entries[e + 1u].x, entries[e + 2u].x, entries[e + 3u].x) - vec4<u32>(u.start);
  let rows = min(features, vec4<u32>(last)) * n;
  let row = entry_rows[g] * n;
  var sum = vec4<f32>();
  for (var j = lane; j < n; j += 64u) {
    let y = err[row + j];
    sum += vec4<f32>(
      dot(y, W_dec[rows.x + j]), dot(y, W_dec[rows.y + j]), dot(y, W_dec[rows.z + j]), dot(y, W_dec[rows.w + j]));
  }
  sums[lane] = sum;
  for (var half = 32u; half > 0u; half = half / 2u) {
    workgroupBarrier();
    if (lane < half) { sums[lane] += sums[lane + half]; }
  }
  workgroupBarrier();
  if (lane < 4u && features[lane] <= last) {
    dacts[e + lane] = u.mean * sums[0][lane] + u.weight * weights[features[lane]];
  }
}
