// Gradient of log θ_i by straight-through estimators, over the entries e of feature i:
//   dlog[i] = -(θ_i / ε) * sum_e K((pre_e - θ_i) / ε) * (θ_i * dact_e + weight)      K(u) = 1 for |u| < 1/2
// added to what is there where touched[i] is not 0. An act of -0 stands for θ - ε/2 < pre <= θ.
// One invocation per feature.
@group(0) @binding(0) var<storage, read> runs: array<vec2<u32>>;     // [window]
@group(0) @binding(1) var<storage, read> blocks: array<u32>;         // [n_blocks]
@group(0) @binding(2) var<storage, read> columns: array<vec4<u32>>;  // [n_columns]: b, act, dact
@group(0) @binding(3) var<storage, read> thresholds: array<f32>;     // [window]: θ
@group(0) @binding(4) var<storage, read> touched: array<u32>;        // [window]
@group(0) @binding(5) var<storage, read_write> dlog: array<f32>;     // [window]
struct Uniforms { window: u32, block0: u32, bandwidth: f32, weight: f32 }
@group(0) @binding(6) var<uniform> u: Uniforms;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n_wg: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
  let i = (wg.y * n_wg.x + wg.x) * 64u + lane;
  if (i >= u.window) { return; }
  let run = runs[i];
  let begin = blocks[u.block0 + i / 256u] + run.x;
  let threshold = thresholds[i];
  let top = threshold + 0.5 * u.bandwidth;
  var sum = 0.0;
  for (var e = begin; e < begin + run.y; e++) {
    if (bitcast<f32>(columns[e].y) < top) { sum += threshold * bitcast<f32>(columns[e].z) + u.weight; }
  }
  let gradient = -threshold / u.bandwidth * sum;
  dlog[i] = select(0.0, dlog[i], touched[i] != 0u) + gradient;
}
