// As adam.wgsl, 4 neighbors of a row at a time: columns is a multiple of 4. Half the time on software drivers.
@group(0) @binding(0) var<storage, read> grad: array<vec4<f32>>;     // [rows, columns]
@group(0) @binding(1) var<storage, read> touched: array<u32>;        // [rows]
@group(0) @binding(2) var<storage, read> status: array<u32>;         // [8], of sae_step_status
@group(0) @binding(3) var<storage, read_write> m: array<vec4<f32>>;  // [rows, columns]
@group(0) @binding(4) var<storage, read_write> v: array<vec4<f32>>;  // [rows, columns]
@group(0) @binding(5) var<storage, read_write> W: array<vec4<f32>>;  // [rows, columns]
struct Uniforms {
  rows: u32, columns: u32, beta1: f32, rest1: f32, beta2: f32, rest2: f32, step_size: f32, v_scale: f32, eps: f32
}
@group(0) @binding(6) var<uniform> u: Uniforms;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n_wg: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
  let i = (wg.y * n_wg.x + wg.x) * 64u + lane;
  let n = u.columns / 4u;
  if (i >= u.rows * n || status[6] != 0u) { return; }
  var g = vec4<f32>();
  if (touched[i / n] != 0u) { g = bitcast<f32>(status[5]) * grad[i]; }
  let first = u.beta1 * m[i] + u.rest1 * g;
  let second = u.beta2 * v[i] + u.rest2 * g * g;
  m[i] = first;
  v[i] = second;
  W[i] -= u.step_size * first / (sqrt(second) * u.v_scale + u.eps);
}
