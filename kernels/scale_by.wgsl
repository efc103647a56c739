// values[i] *= factor[0]
// One invocation per element.
@group(0) @binding(0) var<storage, read> factor: array<f32>;       // [n_factors]
@group(0) @binding(1) var<storage, read_write> values: array<f32>; // [n]
struct Uniforms { n: u32 }
@group(0) @binding(2) var<uniform> u: Uniforms;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n_wg: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
  let i = (wg.y * n_wg.x + wg.x) * 64u + lane;
  if (i < u.n) { values[i] *= factor[0]; }
}
