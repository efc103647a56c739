// tokens[r] = the first token at which the running sum of probs[r, :] passes x times their whole sum
// x is uniform in [0, 1), a hash of the row's own seed and step alone: no row depends on its
// neighbours in a batch.
// Tokens of probability 0 are never taken. A row with a NaN, or without any mass, gives NO_TOKEN.
// One workgroup of 64 per row, each lane over consecutive tokens.
@group(0) @binding(0) var<storage, read> probs: array<u32>;        // [R, vocab], f32 bits
@group(0) @binding(1) var<storage, read> settings: array<u32>; // [R, 8]: seed and step are at 4 and 5
@group(0) @binding(2) var<storage, read_write> tokens: array<u32>; // [R]
struct Uniforms { R: u32, vocab: u32 }
@group(0) @binding(3) var<uniform> u: Uniforms;

const LANES = 64u;
const INFINITY_BITS = 0x7f800000u; // all words above it are NaN or negative
const NO_TOKEN = 0xffffffffu;
var<workgroup> running: array<f32, LANES>; // sum over the lanes up to this one
var<workgroup> n_faults: atomic<u32>;

// 23 bits, so that x times a sum is always less than the sum. Source: Jarzynski and Olano, "Hash
// Functions for GPU Rendering", 2020 (pcg3d).
fn uniform_number(seed: u32, step: u32) -> f32 {
  var v = vec3<u32>(seed, step, 0u) * 1664525u + 1013904223u;
  v.x += v.y * v.z;
  v.y += v.z * v.x;
  v.z += v.x * v.y;
  v ^= v >> vec3<u32>(16u);
  v.x += v.y * v.z;
  v.y += v.z * v.x;
  v.z += v.x * v.y;
  return f32(v.x >> 9u) / 8388608.0;
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n_wg: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
  let r = wg.y * n_wg.x + wg.x;
  if (r >= u.R) { return; }
  let row = r * u.vocab;
  let share = (u.vocab + LANES - 1u) / LANES;
  let start = min(lane * share, u.vocab);
  let end = min(start + share, u.vocab);
  var sum = 0.0;
  for (var v = start; v < end; v++) {
    let bits = probs[row + v];
    if (bits >= INFINITY_BITS) { atomicAdd(&n_faults, 1u); }
    sum += bitcast<f32>(bits);
  }
  running[lane] = sum;
  workgroupBarrier();
  if (lane == 0u) {
    for (var i = 1u; i < LANES; i++) { running[i] += running[i - 1u]; }
  }
  workgroupBarrier();

  let total = running[LANES - 1u];
  if (atomicLoad(&n_faults) > 0u || total <= 0.0) {
    if (lane == 0u) { tokens[r] = NO_TOKEN; }
    return;
  }
  let goal = uniform_number(settings[8u * r + 4u], settings[8u * r + 5u]) * total;
  var before = 0.0;
  if (lane > 0u) { before = running[lane - 1u]; }
  if (before > goal || running[lane] <= goal) { return; }
  var token = NO_TOKEN;
  for (var v = start; v < end && before <= goal; v++) {
    let p = bitcast<f32>(probs[row + v]);
    if (p > 0.0) {
      token = v;
      before += p;
    }
  }
  tokens[r] = token;
}
