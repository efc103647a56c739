// y[i, :] = x[rows[i], :]
// One invocation per element of y.
@group(0) @binding(0) var<storage, read> x: array<f32>;       // [T, d_model]
@group(0) @binding(1) var<storage, read> rows: array<u32>;    // [n]
@group(0) @binding(2) var<storage, read_write> y: array<f32>; // [n, d_model]
struct Uniforms { n: u32, d_model: u32 }
@group(0) @binding(3) var<uniform> u: Uniforms;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n_wg: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
  let at = (wg.y * n_wg.x + wg.x) * 64u + lane;
  if (at >= u.n * u.d_model) { return; }
  y[at] = x[rows[at / u.d_model] * u.d_model + at % u.d_model];
}
