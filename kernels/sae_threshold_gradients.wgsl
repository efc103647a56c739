// Gradient of log θ_i by straight-through estimators, from the gradients dact of a window's activations:
//   dlog[i] = -(θ_i / ε) * sum_b K((pre - θ_i) / ε) * (θ_i * dact[b, i] + weight)      K(u) = 1 for |u| < 1/2
// added to what is there where touched[i] is not 0. Entries below the threshold (act -0) leave no gradient of pre: dact = 0.
// One invocation per feature, features along the lanes.
@group(0) @binding(0) var<storage, read> acts: array<f32>;        // [B, window]: 0, pre, or -0 for θ - ε/2 < pre <= θ
@group(0) @binding(1) var<storage, read> thresholds: array<f32>;  // [window]: θ
@group(0) @binding(2) var<storage, read> touched: array<u32>;     // [window]
@group(0) @binding(3) var<storage, read_write> dact: array<f32>;  // [B, window]
@group(0) @binding(4) var<storage, read_write> dlog: array<f32>;  // [window]
struct Uniforms { B: u32, window: u32, bandwidth: f32, weight: f32 }
@group(0) @binding(5) var<uniform> u: Uniforms;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let i = wg.x * 64u + lane;
  if (i >= u.window) { return; }
  let threshold = thresholds[i];
  let top = threshold + 0.5 * u.bandwidth;
  var sum = 0.0;
  for (var b = 0u; b < u.B; b++) {
    let at = b * u.window + i;
    let act = acts[at];
    if (bitcast<u32>(act) != 0u) {
      if (act < top) { sum += threshold * dact[at] + u.weight; }
      if (!(act > 0.0)) { dact[at] = 0.0; }
    }
  }
  let gradient = -threshold / u.bandwidth * sum;
  dlog[i] = select(0.0, dlog[i], touched[i] != 0u) + gradient;
}
