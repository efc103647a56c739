// nll[t] = log(sum_v exp(logits[t, v])) - logits[t, targets[t]];   0 where targets[t] ≥ vocab (nothing to predict)
// One workgroup of 64 per token; needs reduce.wgsl.
@group(0) @binding(0) var<storage, read> logits: array<f32>;    // [T, vocab]
@group(0) @binding(1) var<storage, read> targets: array<u32>;   // [T]
@group(0) @binding(2) var<storage, read_write> nll: array<f32>; // [T], nats
struct Uniforms { T: u32, vocab: u32 }
@group(0) @binding(3) var<uniform> u: Uniforms;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n_wg: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
  let t = wg.y * n_wg.x + wg.x;
  if (t >= u.T) { return; }
  let row = t * u.vocab;
  var most = -3.0e38;
  for (var v = lane; v < u.vocab; v += 64u) { most = max(most, logits[row + v]); }
  most = max_lanes(most, lane);
  var sum = 0.0;
  for (var v = lane; v < u.vocab; v += 64u) { sum += exp(logits[row + v] - most); }
  let total = sum_lanes(sum, lane);
  if (lane != 0u) { return; }
  let target_id = targets[t];
  if (target_id < u.vocab) { nll[t] = log(total) + most - logits[row + target_id]; }
  else { nll[t] = 0.0; }
}
