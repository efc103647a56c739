// resid[t, :] += weight * x[t, :] / sqrt(mean(x[t, :]²) + eps)      (OLMo-2 norms the outputs of its blocks)
// One workgroup of 64 per row t; needs reduce.wgsl.
@group(0) @binding(0) var<storage, read> x: array<f32>;           // [T, d_model]
@group(0) @binding(1) var<storage, read> weight: array<f32>;      // [d_model]
@group(0) @binding(2) var<storage, read_write> resid: array<f32>; // [T, d_model]
struct Uniforms { T: u32, d_model: u32, eps: f32 }
@group(0) @binding(3) var<uniform> u: Uniforms;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n_wg: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
  let t = wg.y * n_wg.x + wg.x;
  if (t >= u.T) { return; }
  let row = t * u.d_model;
  var squares = 0.0;
  for (var j = lane; j < u.d_model; j += 64u) { squares += x[row + j] * x[row + j]; }
  let scale = inverseSqrt(sum_lanes(squares, lane) / f32(u.d_model) + u.eps);
  for (var j = lane; j < u.d_model; j += 64u) { resid[row + j] += weight[j] * (x[row + j] * scale); }
}
