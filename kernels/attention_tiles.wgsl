// z[t, h] = sum_s softmax_s(q[t, h] · K[slot(s), h'] / sqrt(d_head)) V[slot(s), h'],  s = 0 .. position(t)
// For many tokens on a graphics card: a workgroup of 16 x 16 per head and block of up to 64 tokens of one row, which goes
// through the keys 32 at a time. Queries and keys come 16 elements of the head at a time through workgroup memory, where
// each lane makes the scores of 4 tokens and 2 keys; 4 lanes share the softmax of a token; then each lane adds the values
// of 4 tokens, every 16th group of 4 elements. Running maximum, so that no score is kept beyond its tile.
@group(0) @binding(0) var<storage, read> q: array<vec4<f32>>;       // [T, d_q]
@group(0) @binding(1) var<storage, read> K: array<vec4<f32>>;       // [slots, d_kv]
@group(0) @binding(2) var<storage, read> V: array<vec4<f32>>;       // [slots, d_kv]
@group(0) @binding(3) var<storage, read> blocks: array<vec4<u32>>;  // [n_blocks]: first token, tokens, row, position of the first
@group(0) @binding(4) var<storage, read> pages: array<u32>;         // [rows, pages_per_row]
@group(0) @binding(5) var<storage, read_write> z: array<vec4<f32>>; // [T, d_q]
struct Uniforms { d_q: u32, d_kv: u32, pages_per_row: u32, scale: f32 }
@group(0) @binding(6) var<uniform> u: Uniforms;
// consts D4 (d_head / 4) and PAGE_TOKENS, appended by the declaration.

const TOKENS = 64u;
const KEYS = 32u;
const GROUPS = (D4 + 15u) / 16u; // of 4 elements that a lane adds for each token
var<workgroup> queries: array<vec4<f32>, 256>;           // [4, TOKENS]: 16 elements of the head
var<workgroup> keys: array<vec4<f32>, 128>;              // [4, KEYS]
var<workgroup> weights: array<f32, TOKENS * KEYS>;       // [KEYS, TOKENS]: scores, then weights
var<workgroup> shared_of_lanes: array<f32, 256>;         // [TOKENS, 4]
var<workgroup> keeps: array<f32, TOKENS>;

fn slot(row: u32, s: u32) -> u32 {
  return pages[row * u.pages_per_row + s / PAGE_TOKENS] * PAGE_TOKENS + s % PAGE_TOKENS;
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let block = blocks[wg.x];
  let last = block.w + block.y - 1u;
  let width = u.d_q / 4u;
  let stride = u.d_kv / 4u;
  let column = wg.y / (u.d_q / u.d_kv) * D4;
  let token0 = lane / 16u * 4u; // tokens of which it makes scores and adds values
  let x = lane % 16u;
  let token = lane / 4u; // token of which it shares the softmax, and loads queries
  let position = min(block.w + token, last);
  let query = (block.x + min(token, block.y - 1u)) * width + wg.y * D4;

  var most = -3.0e38;
  var total = 0.0;
  var sum: array<vec4<f32>, 4u * GROUPS>;
  for (var s = 0u; s <= last; s += KEYS) {
    // The last key stands in for those after it, and weighs nothing.
    let key = slot(block.z, min(s + token % KEYS, last)) * stride + column;
    var near = vec4<f32>(); // scores of key x
    var far = vec4<f32>();  // scores of key x + 16
    for (var i = 0u; i < D4; i += 4u) {
      let mine = i + lane % 4u;
      queries[lane % 4u * TOKENS + token] = vec4<f32>();
      if (mine < D4) { queries[lane % 4u * TOKENS + token] = q[query + mine]; }
      if (token < KEYS) {
        keys[lane % 4u * KEYS + token] = vec4<f32>();
        if (mine < D4) { keys[lane % 4u * KEYS + token] = K[key + mine]; }
      }
      workgroupBarrier();
      for (var j = 0u; j < 4u; j++) {
        let a = keys[j * KEYS + x];
        let b = keys[j * KEYS + x + 16u];
        let first = j * TOKENS + token0;
        let q0 = queries[first];
        let q1 = queries[first + 1u];
        let q2 = queries[first + 2u];
        let q3 = queries[first + 3u];
        near += vec4<f32>(dot(q0, a), dot(q1, a), dot(q2, a), dot(q3, a));
        far += vec4<f32>(dot(q0, b), dot(q1, b), dot(q2, b), dot(q3, b));
      }
      workgroupBarrier();
    }
    for (var a = 0u; a < 4u; a++) {
      weights[x * TOKENS + token0 + a] = near[a] * u.scale;
      weights[(x + 16u) * TOKENS + token0 + a] = far[a] * u.scale;
    }
    workgroupBarrier();
    var larger = most;
    for (var n = lane % 4u; n < KEYS; n += 4u) {
      if (s + n <= position) { larger = max(larger, weights[n * TOKENS + token]); }
    }
    shared_of_lanes[lane] = larger;
    workgroupBarrier();
    for (var n = 0u; n < 4u; n++) { larger = max(larger, shared_of_lanes[4u * token + n]); }
    let keep = exp(most - larger);
    most = larger;
    total *= keep;
    for (var n = lane % 4u; n < KEYS; n += 4u) {
      let at = n * TOKENS + token;
      var weight = 0.0;
      if (s + n <= position) { weight = exp(weights[at] - larger); }
      weights[at] = weight;
      total += weight;
    }
    if (lane % 4u == 0u) { keeps[token] = keep; }
    workgroupBarrier();
    for (var a = 0u; a < 4u; a++) {
      for (var g = 0u; g < GROUPS; g++) { sum[a * GROUPS + g] *= keeps[token0 + a]; }
    }
    for (var n = 0u; n < min(KEYS, last + 1u - s); n++) {
      let value = slot(block.z, s + n) * stride + column;
      let at = n * TOKENS + token0;
      for (var g = 0u; g < GROUPS; g++) {
        if (g * 16u + x < D4) {
          let v = V[value + g * 16u + x];
          for (var a = 0u; a < 4u; a++) {
            // What is not finite must not reach earlier tokens, not even times 0.
            if (s + n <= block.w + token0 + a) {
              sum[a * GROUPS + g] = fma(v, vec4<f32>(weights[at + a]), sum[a * GROUPS + g]);
            }
          }
        }
      }
    }
  }
  workgroupBarrier();
  shared_of_lanes[lane] = total;
  workgroupBarrier();
  for (var a = 0u; a < 4u; a++) {
    let t = token0 + a;
    let first = 4u * t;
    let all = shared_of_lanes[first] + shared_of_lanes[first + 1u] + shared_of_lanes[first + 2u] + shared_of_lanes[first + 3u];
    for (var g = 0u; g < GROUPS; g++) {
      let i = g * 16u + x;
      if (t < block.y && i < D4) {
        z[(block.x + t) * width + wg.y * D4 + i] = sum[a * GROUPS + g] / all;
      }
    }
  }
}
