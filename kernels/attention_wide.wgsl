// z[t, h] = sum_s softmax_s(score(s)) V[slot(s), h'],  s = 0 .. position(t); or of part p of the keys, to be joined:
// sums[t, h, p] = sum_s exp(score(s) - most) V[slot(s), h'];  most, sum_s exp(score(s) - most)
// score(s) = q[t, h] · K[slot(s), h'] / sqrt(d_head);  slot(s) = pages[row, s / PAGE_TOKENS] * PAGE_TOKENS + s % PAGE_TOKENS
// For few tokens on a graphics card: a workgroup of 256 per token, HEADS heads of one key-value head, and part of the keys.
// In rounds of 64 keys, four lanes share a key's dot products; then lanes share the keys' values, D4 lanes a key, and each
// group of D4 lanes runs a softmax over its own keys. The groups are joined at the end.
@group(0) @binding(0) var<storage, read> q: array<vec4<f32>>;      // [T, d_q]
@group(0) @binding(1) var<storage, read> K: array<vec4<f32>>;      // [slots, d_kv]
@group(0) @binding(2) var<storage, read> V: array<vec4<f32>>;      // [slots, d_kv]
@group(0) @binding(3) var<storage, read> blocks: array<vec4<u32>>; // [n_blocks]: first token, tokens (1), row, position
@group(0) @binding(4) var<storage, read> pages: array<u32>;        // [rows, pages_per_row]
@group(0) @binding(5) var<storage, read_write> sums: array<vec4<f32>>; // z, or [T, heads, n_parts, D4 + 1]
struct Uniforms { n_blocks: u32, d_q: u32, d_kv: u32, pages_per_row: u32, n_parts: u32, part_keys: u32, scale: f32 }
@group(0) @binding(6) var<uniform> u: Uniforms;
// consts D4 (d_head / 4, up to 256), PAGE_TOKENS, HEADS (up to 8) and IS_PART (1 or 0), appended by the declaration.

const KEYS = 64u;
const GROUPS = min(256u / D4, KEYS);
var<workgroup> quarters: array<f32, HEADS * 256u>; // [HEADS, KEYS, 4]: dot products over a quarter of the head
var<workgroup> joined: array<vec4<f32>, 256>;
var<workgroup> peaks: array<f32, GROUPS>;
var<workgroup> totals: array<f32, GROUPS>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n_wg: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
  let n_heads = u.d_q / (4u * D4);
  let at = wg.y * n_wg.x + wg.x;
  if (at >= u.n_blocks * (n_heads / HEADS) * u.n_parts) { return; }
  let part = at % u.n_parts;
  let head0 = at / u.n_parts % (n_heads / HEADS) * HEADS;
  let block = blocks[at / u.n_parts / (n_heads / HEADS)];
  let start = part * u.part_keys;
  let end = min(start + u.part_keys, block.w + 1u);
  let stride = u.d_kv / 4u;
  let column = head0 / (u.d_q / u.d_kv) * D4;
  let row = block.z * u.pages_per_row;
  let query = block.x * (u.d_q / 4u) + head0 * D4;
  let group = lane / D4;

  var most: array<f32, HEADS>;
  var total: array<f32, HEADS>;
  var sum: array<vec4<f32>, HEADS>;
  for (var h = 0u; h < HEADS; h++) { most[h] = -3.0e38; }
  for (var s = start; s < end; s += KEYS) {
    let mine = s + lane / 4u;
    if (mine < end) {
      let key = (pages[row + mine / PAGE_TOKENS] * PAGE_TOKENS + mine % PAGE_TOKENS) * stride + column;
      var products = array<vec4<f32>, HEADS>();
      for (var i = lane % 4u; i < D4; i += 4u) {
        let k = K[key + i];
        for (var h = 0u; h < HEADS; h++) { products[h] = fma(q[query + h * D4 + i], k, products[h]); }
      }
      for (var h = 0u; h < HEADS; h++) { quarters[h * 256u + lane] = dot(products[h], vec4<f32>(u.scale)); }
    }
    workgroupBarrier();
    if (group < GROUPS) {
      for (var n = group; n < min(KEYS, end - s); n += GROUPS) {
        let key = (pages[row + (s + n) / PAGE_TOKENS] * PAGE_TOKENS + (s + n) % PAGE_TOKENS) * stride + column;
        let v = V[key + lane % D4];
        for (var h = 0u; h < HEADS; h++) {
          let first = h * 256u + 4u * n;
          let score = quarters[first] + quarters[first + 1u] + quarters[first + 2u] + quarters[first + 3u];
          let larger = max(most[h], score);
          let keep = exp(most[h] - larger);
          let weight = exp(score - larger);
          most[h] = larger;
          total[h] = total[h] * keep + weight;
          sum[h] = fma(v, vec4<f32>(weight), sum[h] * keep);
        }
      }
    }
    workgroupBarrier();
  }
  for (var h = 0u; h < HEADS; h++) {
    if (group < GROUPS) {
      peaks[group] = most[h];
      totals[group] = total[h];
    }
    workgroupBarrier();
    var peak = peaks[0];
    for (var g = 1u; g < GROUPS; g++) { peak = max(peak, peaks[g]); }
    joined[lane] = sum[h] * exp(most[h] - peak);
    workgroupBarrier();
    let to = ((block.x * n_heads + head0 + h) * u.n_parts + part) * (D4 + IS_PART);
    if (lane < D4) {
      var all = joined[lane];
      for (var g = 1u; g < GROUPS; g++) { all += joined[g * D4 + lane]; }
      var weight = 0.0;
      for (var g = 0u; g < GROUPS; g++) { weight += totals[g] * exp(peaks[g] - peak); }
      if (IS_PART == 0u) { all /= weight; }
      sums[to + lane] = all;
      if (IS_PART == 1u && lane == 0u) { sums[to + D4] = vec4<f32>(peak, weight, 0.0, 0.0); }
    }
    workgroupBarrier();
  }
}
