// err[b, :] = (adds ? err[b, :] : b_dec − x[b, :]) + sum_e acts_e * W_dec[feature_e, :]
// over the entries e of row b whose features lie in the window. Columns in groups of 4; d_model is a multiple of 4.
// A workgroup of LANES owns 8·LANES groups of columns of one row, each invocation 8 of them.
override LANES: u32 = 64u;
@group(0) @binding(0) var<storage, read> entries: array<vec2<u32>>;       // [capacity]: feature, act
@group(0) @binding(1) var<storage, read> tile_starts: array<u32>;         // [n_tiles, B]
@group(0) @binding(2) var<storage, read> row_start: array<u32>;           // [n_starts], n_starts = B + 1
@group(0) @binding(3) var<storage, read> W_dec: array<vec4<f32>>;         // [window, d_model]
@group(0) @binding(4) var<storage, read> b_dec: array<vec4<f32>>;         // [d_model]
@group(0) @binding(5) var<storage, read> x: array<vec4<f32>>;             // [B, d_model]
@group(0) @binding(6) var<storage, read_write> err: array<vec4<f32>>;     // [B, d_model]
struct Uniforms { B: u32, d_model: u32, n_tiles: u32, start: u32, tile0: u32, tile1: u32, adds: u32 }
@group(0) @binding(7) var<uniform> u: Uniforms;

const NONE = 0xffffffffu;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n_wg: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
  let n = u.d_model / 4u;
  let parts = (n + 8u * LANES - 1u) / (8u * LANES);
  let item = wg.y * n_wg.x + wg.x;
  let b = item / parts;
  if (b >= u.B) { return; }
  let c0 = (item % parts) * 8u * LANES + lane;
  let c1 = c0 + LANES;
  let c2 = c1 + LANES;
  let c3 = c2 + LANES;
  let c4 = c3 + LANES;
  let c5 = c4 + LANES;
  let c6 = c5 + LANES;
  let c7 = c6 + LANES;
  // Columns past the end repeat the last one; they are not stored.
  let last = n - 1u;
  let k0 = min(c0, last);
  let k1 = min(c1, last);
  let k2 = min(c2, last);
  let k3 = min(c3, last);
  let k4 = min(c4, last);
  let k5 = min(c5, last);
  let k6 = min(c6, last);
  let k7 = min(c7, last);
  var s0: vec4<f32>;
  var s1: vec4<f32>;
  var s2: vec4<f32>;
  var s3: vec4<f32>;
  var s4: vec4<f32>;
  var s5: vec4<f32>;
  var s6: vec4<f32>;
  var s7: vec4<f32>;
  let row = b * n;
  if (u.adds == 0u) {
    s0 = b_dec[k0] - x[row + k0];
    s1 = b_dec[k1] - x[row + k1];
    s2 = b_dec[k2] - x[row + k2];
    s3 = b_dec[k3] - x[row + k3];
    s4 = b_dec[k4] - x[row + k4];
    s5 = b_dec[k5] - x[row + k5];
    s6 = b_dec[k6] - x[row + k6];
    s7 = b_dec[k7] - x[row + k7];
  } else {
    s0 = err[row + k0];
    s1 = err[row + k1];
    s2 = err[row + k2];
    s3 = err[row + k3];
    s4 = err[row + k4];
    s5 = err[row + k5];
    s6 = err[row + k6];
    s7 = err[row + k7];
  }
  let begin = row_start[b] + tile_starts[u.tile0 * u.B + b];
  var end = row_start[b + 1u];
  if (u.tile1 < u.n_tiles) { end = row_start[b] + tile_starts[u.tile1 * u.B + b]; }
  for (var e = begin; e < end; e++) {
    let entry = entries[e];
    if (entry.x == NONE) { break; }
    let act = vec4<f32>(bitcast<f32>(entry.y));
    let w = (entry.x - u.start) * n;
    s0 = fma(act, W_dec[w + k0], s0);
    s1 = fma(act, W_dec[w + k1], s1);
    s2 = fma(act, W_dec[w + k2], s2);
    s3 = fma(act, W_dec[w + k3], s3);
    s4 = fma(act, W_dec[w + k4], s4);
    s5 = fma(act, W_dec[w + k5], s5);
    s6 = fma(act, W_dec[w + k6], s6);
    s7 = fma(act, W_dec[w + k7], s7);
  }
  if (c0 < n) { err[row + c0] = s0; }
  if (c1 < n) { err[row + c1] = s1; }
  if (c2 < n) { err[row + c2] = s2; }
  if (c3 < n) { err[row + c3] = s3; }
  if (c4 < n) { err[row + c4] = s4; }
  if (c5 < n) { err[row + c5] = s5; }
  if (c6 < n) { err[row + c6] = s6; }
  if (c7 < n) { err[row + c7] = s7; }
}
