// As adam_rows.wgsl, with moments in 8 bits: each block of 256 neighbors of a row has a scale for either moment.
//   m = sign(c) (c / 127)² scale_m, c = code - 128;   v = (code / 255)⁴ scale_v
// The powers keep small moments apart from 0. What is stored is the next code below or above, at random (by a hash of
// place and step) so that the moment is right on average, not its code: moments that change by less than a code still
// move as they should. A v above 0 stays so.
// One workgroup of 64 per block, 4 neighbors a lane; needs reduce.wgsl. columns is a multiple of 4.
@group(0) @binding(0) var<storage, read> grad: array<vec4<f32>>;         // [rows, columns]
@group(0) @binding(1) var<storage, read> touched: array<u32>;            // [rows]
@group(0) @binding(2) var<storage, read> status: array<u32>;             // [n_status], of sae_step_status
@group(0) @binding(3) var<storage, read_write> m: array<u32>;            // [rows, words], words = columns / 4
@group(0) @binding(4) var<storage, read_write> v: array<u32>;            // [rows, words]
@group(0) @binding(5) var<storage, read_write> scales: array<vec2<f32>>; // [rows, 2·blocks]: of m and of v
@group(0) @binding(6) var<storage, read_write> W: array<vec4<f32>>;      // [rows, columns]
struct Uniforms {
  rows: u32, words: u32, start: u32, step: u32,
  beta1: f32, rest1: f32, beta2: f32, rest2: f32, step_size: f32, v_scale: f32, eps: f32
}
@group(0) @binding(7) var<uniform> u: Uniforms;

fn codes_of(word: u32) -> vec4<f32> {
  return vec4<f32>(vec4<u32>(word, word >> 8u, word >> 16u, word >> 24u) & vec4<u32>(255u));
}

fn word_of(codes: vec4<f32>) -> u32 {
  let c = vec4<u32>(codes);
  return c.x | (c.y << 8u) | (c.z << 16u) | (c.w << 24u);
}

// Uniform numbers in (0, 1) from a place and a step. Source of the hash: Jarzynski and Olano 2020, pcg.
fn pcg(value: u32) -> u32 {
  let state = value * 747796405u + 2891336453u;
  let word = ((state >> ((state >> 28u) + 4u)) ^ state) * 277803737u;
  return (word >> 22u) ^ word;
}

fn noise(seed: u32) -> vec4<f32> {
  let a = pcg(seed);
  let b = pcg(a);
  return (vec4<f32>(vec4<u32>(a & 0xffffu, a >> 16u, b & 0xffffu, b >> 16u)) + 0.5) / 65536.0;
}

fn max_of(values: vec4<f32>) -> f32 { return max(max(values.x, values.y), max(values.z, values.w)); }

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n_wg: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
  let block = wg.y * n_wg.x + wg.x;
  let blocks = (u.words + 63u) / 64u;
  let row = block / blocks;
  let word = (block % blocks) * 64u + lane;
  let is_inside = row < u.rows && word < u.words;
  let at = select(0u, row * u.words + word, is_inside);
  let scale = scales[min(block, u.rows * blocks - 1u)];
  var g = vec4<f32>();
  if (is_inside && touched[row] != 0u) { g = bitcast<f32>(status[5]) * grad[at]; }
  let c = (codes_of(m[at]) - 128.0) / 127.0;
  let d = codes_of(v[at]) / 255.0;
  // Codes of the start are 0: a scale of 0 makes both moments 0.
  let first = u.beta1 * sign(c) * c * c * scale.x + u.rest1 * g;
  let second = u.beta2 * d * d * d * d * scale.y + u.rest2 * g * g;
  let inside = select(0.0, 1.0, is_inside);
  let most_m = max_lanes(inside * max_of(abs(first)), lane);
  let most_v = max_lanes(inside * max_of(second), lane);
  storageBarrier(); // all lanes have read the scale that one of them replaces
  if (!is_inside || status[6] != 0u) { return; }
  W[at] -= u.step_size * first / (sqrt(second) * u.v_scale + u.eps);
  let seed = pcg(u.step ^ pcg((u.start + row) * u.words + word));
  // What the codes stand for, in units of the smallest, and how far up it is from the code below to the one above.
  let y = 16129.0 * min(abs(first) / max(most_m, 1e-38), vec4<f32>(1.0));
  let z = 4228250625.0 * min(second / max(most_v, 1e-38), vec4<f32>(1.0));
  let m_low = floor(sqrt(y));
  let v_low = floor(sqrt(sqrt(z)));
  let m_part = (y - m_low * m_low) / (2.0 * m_low + 1.0);
  let v_square = v_low * v_low;
  let v_next = (v_low + 1.0) * (v_low + 1.0);
  let v_part = (z - v_square * v_square) / (v_next * v_next - v_square * v_square);
  let m_code = min(m_low + select(vec4<f32>(), vec4<f32>(1.0), noise(seed) < m_part), vec4<f32>(127.0));
  let v_random = v_low + select(vec4<f32>(), vec4<f32>(1.0), noise(seed ^ 0x9e3779b9u) < v_part);
  let v_code = clamp(v_random, select(vec4<f32>(), vec4<f32>(1.0), second > vec4<f32>()), vec4<f32>(255.0));
  m[at] = word_of(128.0 + sign(first) * m_code);
  v[at] = word_of(v_code);
  if (lane == 0u) { scales[block] = vec2<f32>(most_m, most_v); }
}
