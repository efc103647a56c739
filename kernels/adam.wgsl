// g = touched ? clip * grad : 0;  m = beta1·m + (1 - beta1)·g;  v = beta2·v + (1 - beta2)·g²
// W -= step_size * m / (sqrt(v) * v_scale + eps)     step_size = lr / (1 - beta1ᵗ),  v_scale = 1 / sqrt(1 - beta2ᵗ)
// Rows that no gradient reached have none, whatever grad holds. Nothing changes once status names a bad step.
// One invocation per element.
@group(0) @binding(0) var<storage, read> grad: array<f32>;     // [rows, columns]
@group(0) @binding(1) var<storage, read> touched: array<u32>;  // [rows]
@group(0) @binding(2) var<storage, read> status: array<u32>;   // [8], of sae_step_status
@group(0) @binding(3) var<storage, read_write> m: array<f32>;  // [rows, columns]
@group(0) @binding(4) var<storage, read_write> v: array<f32>;  // [rows, columns]
@group(0) @binding(5) var<storage, read_write> W: array<f32>;  // [rows, columns]
// 1 - beta comes from the host: in f32 it would lose 1e-5 of its value.
struct Uniforms {
  rows: u32, columns: u32, beta1: f32, rest1: f32, beta2: f32, rest2: f32, step_size: f32, v_scale: f32, eps: f32
}
@group(0) @binding(6) var<uniform> u: Uniforms;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n_wg: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
  let i = (wg.y * n_wg.x + wg.x) * 64u + lane;
  if (i >= u.rows * u.columns || status[6] != 0u) { return; }
  let g = select(0.0, bitcast<f32>(status[5]) * grad[i], touched[i / u.columns] != 0u);
  let first = u.beta1 * m[i] + u.rest1 * g;
  let second = u.beta2 * v[i] + u.rest2 * g * g;
  m[i] = first;
  v[i] = second;
  W[i] -= u.step_size * first / (sqrt(second) * u.v_scale + u.eps);
}
