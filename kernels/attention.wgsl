// z[t, h] = sum_s softmax_s(q[t, h] · K[slot(s), h'] / sqrt(d_head)) V[slot(s), h'],  s = 0 .. position(t)
// slot(s) = pages[row(t), s / PAGE_TOKENS] * PAGE_TOKENS + s % PAGE_TOKENS;  h' = h / (heads per key-value head)
// Causal, over the token's own row of the cache, so padding never enters.
// One invocation per (token, head), tokens across lanes; softmax in one pass with a running maximum.
@group(0) @binding(0) var<storage, read> q: array<vec4<f32>>;       // [T, d_q]
@group(0) @binding(1) var<storage, read> K: array<vec4<f32>>;       // [slots, d_kv]
@group(0) @binding(2) var<storage, read> V: array<vec4<f32>>;       // [slots, d_kv]
@group(0) @binding(3) var<storage, read> places: array<vec2<u32>>;  // [T]: row, position
@group(0) @binding(4) var<storage, read> pages: array<u32>;         // [rows, pages_per_row]
@group(0) @binding(5) var<storage, read_write> z: array<vec4<f32>>; // [T, d_q]
struct Uniforms { T: u32, d_q: u32, d_kv: u32, pages_per_row: u32, scale: f32 }
@group(0) @binding(6) var<uniform> u: Uniforms;
// const D4: d_head / 4, and PAGE_TOKENS, appended by the declaration.

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let t = id.x;
  if (t >= u.T) { return; }
  let at = (t * u.d_q) / 4u + id.y * D4;
  let heads_per_kv = u.d_q / u.d_kv;
  let place = places[t];
  let stride = u.d_kv / 4u;
  let head = (id.y / heads_per_kv) * D4;
  let row = place.x * u.pages_per_row;
  var query: array<vec4<f32>, D4>;
  var sum: array<vec4<f32>, D4>;
  for (var i = 0u; i < D4; i++) {
    query[i] = q[at + i] * u.scale;
    sum[i] = vec4<f32>();
  }
  var most = -3.0e38;
  var total = 0.0;
  for (var s = 0u; s <= place.y; s++) {
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
  for (var i = 0u; i < D4; i++) { z[at + i] = sum[i] / total; }
}
