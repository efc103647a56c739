// mean = decay · mean + (1 - decay) · the least threshold of the slots that keep anything; the first one as it is
// mean[0] is the value, mean[1] how many went in. Nothing changes where no slot keeps anything, or only what is not finite.
// One workgroup of 64.
@group(0) @binding(0) var<storage, read> thresholds: array<vec2<u32>>;  // [slots]: f32 bits, 0 where nothing is kept
@group(0) @binding(1) var<storage, read_write> mean: array<f32>;        // [2]
struct Uniforms { slots: u32, decay: f32 }
@group(0) @binding(2) var<uniform> u: Uniforms;

const NONE = 0x7f800000u;

var<workgroup> least: atomic<u32>;

@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) lane: u32) {
  if (lane == 0u) { atomicStore(&least, NONE); }
  workgroupBarrier();
  for (var s = lane; s < u.slots; s += 64u) {
    let threshold = thresholds[s].x;
    if (threshold != 0u) { atomicMin(&least, threshold); }
  }
  workgroupBarrier();
  let word = atomicLoad(&least);
  if (lane != 0u || word >= NONE) { return; }
  let value = bitcast<f32>(word);
  mean[0] = select(u.decay * mean[0] + (1.0 - u.decay) * value, value, mean[1] == 0.0);
  mean[1] += 1.0;
}
