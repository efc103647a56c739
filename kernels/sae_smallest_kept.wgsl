// Follows the smallest activation that a step keeps, the threshold for inference:
//   smallest = least of the slots' thresholds above 0;  average = first one as it is, then decay·average + (1 - decay)·smallest
// One workgroup of 64.
@group(0) @binding(0) var<storage, read> thresholds: array<vec2<u32>>; // [slots]: f32 bits, and a number not read here
@group(0) @binding(1) var<storage, read> status: array<u32>;           // [n_status], of sae_step_status
@group(0) @binding(2) var<storage, read_write> average: array<f32>;    // [1]; 0 before the first
struct Uniforms { slots: u32, decay: f32, rest: f32 }
@group(0) @binding(3) var<uniform> u: Uniforms;

const INFINITY = 0x7f800000u;
var<workgroup> least: array<u32, 64>;

@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) lane: u32) {
  var smallest = INFINITY;
  for (var i = lane; i < u.slots; i += 64u) {
    let bits = thresholds[i].x;
    if (bits != 0u) { smallest = min(smallest, bits); }
  }
  least[lane] = smallest;
  workgroupBarrier();
  if (lane != 0u || status[6] != 0u) { return; }
  for (var other = 1u; other < 64u; other++) { smallest = min(smallest, least[other]); }
  if (smallest >= INFINITY) { return; }
  let value = bitcast<f32>(smallest);
  average[0] = select(u.decay * average[0] + u.rest * value, value, average[0] == 0.0);
}
