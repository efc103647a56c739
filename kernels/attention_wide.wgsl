// As attention.wgsl, for few tokens: one workgroup of 64 per (token, head), whose lanes share the keys.
// Each lane runs a softmax over its own keys; the lanes' results are then joined, 4 elements of the head at a time.
@group(0) @binding(0) var<storage, read> q: array<vec4<f32>>;       // [T, d_q]
@group(0) @binding(1) var<storage, read> K: array<vec4<f32>>;       // [slots, d_kv]
@group(0) @binding(2) var<storage, read> V: array<vec4<f32>>;       // [slots, d_kv]
@group(0) @binding(3) var<storage, read> places: array<vec2<u32>>;  // [T]: row, position
@group(0) @binding(4) var<storage, read> pages: array<u32>;         // [rows, pages_per_row]
@group(0) @binding(5) var<storage, read_write> z: array<vec4<f32>>; // [T, d_q]
struct Uniforms { T: u32, d_q: u32, d_kv: u32, pages_per_row: u32, scale: f32 }
@group(0) @binding(6) var<uniform> u: Uniforms;
// const D4: d_head / 4, and PAGE_TOKENS, appended by the declaration. Needs reduce.wgsl.

var<workgroup> joined: array<vec4<f32>, 64>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let at = (wg.x * u.d_q) / 4u + wg.y * D4;
  let heads_per_kv = u.d_q / u.d_kv;
  let place = places[wg.x];
  let stride = u.d_kv / 4u;
  let head = (wg.y / heads_per_kv) * D4;
  let row = place.x * u.pages_per_row;
  var query: array<vec4<f32>, D4>;
  var sum: array<vec4<f32>, D4>;
  for (var i = 0u; i < D4; i++) {
    query[i] = q[at + i] * u.scale;
    sum[i] = vec4<f32>();
  }
  var most = -3.0e38;
  var total = 0.0;
  for (var s = lane; s <= place.y; s += 64u) {
    let key = (pages[row + s / PAGE_TOKENS] * PAGE_TOKENS + s % PAGE_TOKENS) * stride + head;
    var products = vec4<f32>();
    for (var i = 0u; i < D4; i++) { products = fma(query[i], K[key + i], products); }
    let score = dot(products, vec4<f32>(1.0));
    let larger = max(most, score);
    let keep = exp(most - larger);
    let weight = exp(score - larger);
    total = total * keep + weight;
    for (var i = 0u; i < D4; i++) { sum[i] = fma(V[key + i], vec4<f32>(weight), sum[i] * keep); }
    most = larger;
  }
  let share = exp(most - max_lanes(most, lane));
  let all = sum_lanes(total * share, lane);
  for (var i = 0u; i < D4; i++) {
    joined[lane] = sum[i] * share;
    workgroupBarrier();
    for (var half = 32u; half > 0u; half = half / 2u) {
      if (lane < half) { joined[lane] += joined[lane + half]; }
      workgroupBarrier();
    }
    if (lane == 0u) { z[at + i] = joined[0] / all; }
    workgroupBarrier();
  }
}
