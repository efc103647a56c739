// tokens[r] = the first token at which the running sum of kept weights passes x times their sum
// x is uniform in [0, 1), a hash of the row's own seed and step alone: no row depends on its
// neighbours in a batch.
// Greedy rows give the first largest logit; rows without a distribution give NO_TOKEN.
// One workgroup of 128 per row: first it finds the block, then the token, each lane over
// consecutive ones; needs sample_words.wgsl.
@group(0) @binding(0) var<storage, read> logits: array<u32>;         // [R, vocab], f32 bits
@group(0) @binding(1) var<storage, read> settings: array<vec4<u32>>; // [R, 2]: seed and step are 4 and 5
@group(0) @binding(2) var<storage, read> rows: array<vec4<u32>>;     // [R]: top, its token, least, mass
@group(0) @binding(3) var<storage, read> masses: array<f32>;         // [R, N_BLOCKS]
@group(0) @binding(4) var<storage, read_write> tokens: array<u32>;   // [R]
struct Uniforms { R: u32, vocab: u32 }
@group(0) @binding(5) var<uniform> u: Uniforms;

const NO_TOKEN = 0xffffffffu;
const BELOW_ONE = 0.99999994;
var<workgroup> running: array<f32, N_BLOCKS>; // sum up to and with this lane's
var<workgroup> block: u32;
var<workgroup> picked: u32;

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

fn run_up(lane: u32, value: f32) {
  running[lane] = value;
  workgroupBarrier();
  if (lane == 0u) {
    for (var i = 1u; i < N_BLOCKS; i++) { running[i] += running[i - 1u]; }
  }
  workgroupBarrier();
}

fn before(lane: u32) -> f32 {
  if (lane == 0u) { return 0.0; }
  return running[lane - 1u];
}

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n_wg: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
  let r = wg.y * n_wg.x + wg.x;
  if (r >= u.R) { return; }
  let state = rows[r];
  let temperature = bitcast<f32>(settings[2u * r].x);
  if (is_faulty(state.x) || temperature < SMALLEST_TEMPERATURE) {
    if (lane == 0u) { tokens[r] = select(state.y, NO_TOKEN, is_faulty(state.x)); }
    return;
  }
  let draw = settings[2u * r + 1u];
  run_up(lane, masses[r * N_BLOCKS + lane]);
  let goal = uniform_number(draw.x, draw.y) * running[N_BLOCKS - 1u];
  if (lane == 0u) { picked = state.y; } // stays only where rounding leaves nothing else
  if (before(lane) <= goal && running[lane] > goal) { block = lane; }
  let chosen = workgroupUniformLoad(&block);
  let start_mass = before(chosen);
  let fraction = (goal - start_mass) / (running[chosen] - start_mass);
  workgroupBarrier();

  let span = span_of(chosen, u.vocab);
  let share = (span.end - span.start + N_BLOCKS - 1u) / N_BLOCKS;
  let start = min(span.start + lane * share, span.end);
  let end = min(start + share, span.end);
  let row = r * u.vocab;
  var sum = 0.0;
  for (var v = start; v < end; v++) {
    let word = ordered(logits[row + v]);
    if (word >= state.z) { sum += weight_of(word, state.x, temperature); }
  }
  run_up(lane, sum);
  let rest = min(fraction, BELOW_ONE) * running[N_BLOCKS - 1u];
  var passed = before(lane);
  if (passed <= rest && running[lane] > rest) {
    var token = state.y;
    for (var v = start; v < end && passed <= rest; v++) {
      let word = ordered(logits[row + v]);
      if (word < state.z) { continue; }
      let weight = weight_of(word, state.x, temperature);
      if (weight > 0.0) {
        token = v;
        passed += weight;
      }
    }
    picked = token;
  }
  workgroupBarrier();
  if (lane == 0u) { tokens[r] = picked; }
}
