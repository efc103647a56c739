// q[t]       = rope(q_norm * rms(qkv[t, 0 .. d_q]))              for all query heads at once
// K[slot(t)] = rope(k_norm * rms(qkv[t, d_q .. d_q + d_kv]))     OLMo-2 norms over the whole projection
// V[slot(t)] = qkv[t, d_q + d_kv ..]                             slot(t) = pages[row, position / PAGE_TOKENS] * PAGE_TOKENS + position % PAGE_TOKENS
// rope rotates the pair (i, i + d_head/2) of every head by position · theta^(-2i/d_head).
// One workgroup of 64 per token; needs reduce.wgsl.
@group(0) @binding(0) var<storage, read> qkv: array<f32>;        // [T, d_q + 2 d_kv]
@group(0) @binding(1) var<storage, read> qk_norm: array<f32>;    // [d_q + d_kv]: q_norm, then k_norm
@group(0) @binding(2) var<storage, read> rope: array<vec2<f32>>; // [positions, d_head/2]: cos, sin
@group(0) @binding(3) var<storage, read> places: array<vec2<u32>>; // [T]: row, position
@group(0) @binding(4) var<storage, read> pages: array<u32>;      // [rows, pages_per_row]
@group(0) @binding(5) var<storage, read_write> q: array<f32>;    // [T, d_q]
@group(0) @binding(6) var<storage, read_write> K: array<f32>;    // [slots, d_kv]
@group(0) @binding(7) var<storage, read_write> V: array<f32>;    // [slots, d_kv]
struct Uniforms { T: u32, d_q: u32, d_kv: u32, d_head: u32, pages_per_row: u32, eps: f32 }
@group(0) @binding(8) var<uniform> u: Uniforms;
// const PAGE_TOKENS, appended by the declaration.

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n_wg: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
  let t = wg.y * n_wg.x + wg.x;
  if (t >= u.T) { return; }
  let row = t * (u.d_q + 2u * u.d_kv);
  let place = places[t];
  let page = pages[place.x * u.pages_per_row + place.y / PAGE_TOKENS];
  let slot = (page * PAGE_TOKENS + place.y % PAGE_TOKENS) * u.d_kv;
  let pairs = u.d_head / 2u;
  let angles = place.y * pairs;

  var squares = 0.0;
  for (var j = lane; j < u.d_q; j += 64u) { squares += qkv[row + j] * qkv[row + j]; }
  let q_scale = inverseSqrt(sum_lanes(squares, lane) / f32(u.d_q) + u.eps);
  squares = 0.0;
  for (var j = lane; j < u.d_kv; j += 64u) { squares += qkv[row + u.d_q + j] * qkv[row + u.d_q + j]; }
  let k_scale = inverseSqrt(sum_lanes(squares, lane) / f32(u.d_kv) + u.eps);

  for (var p = lane; p < u.d_q / 2u; p += 64u) {
    let at = (p / pairs) * u.d_head + p % pairs;
    let x = qk_norm[at] * (qkv[row + at] * q_scale);
    let y = qk_norm[at + pairs] * (qkv[row + at + pairs] * q_scale);
    let turn = rope[angles + p % pairs];
    q[t * u.d_q + at] = x * turn.x - y * turn.y;
    q[t * u.d_q + at + pairs] = y * turn.x + x * turn.y;
  }
  for (var p = lane; p < u.d_kv / 2u; p += 64u) {
    let at = (p / pairs) * u.d_head + p % pairs;
    let x = qk_norm[u.d_q + at] * (qkv[row + u.d_q + at] * k_scale);
    let y = qk_norm[u.d_q + at + pairs] * (qkv[row + u.d_q + at + pairs] * k_scale);
    let turn = rope[angles + p % pairs];
    K[slot + at] = x * turn.x - y * turn.y;
    K[slot + at + pairs] = y * turn.x + x * turn.y;
  }
  for (var j = lane; j < u.d_kv; j += 64u) { V[slot + j] = qkv[row + u.d_q + u.d_kv + j]; }
}
