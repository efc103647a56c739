// y[i] = x[i]
// For measuring how fast memory is copied: one invocation per 16 bytes.
@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;       // f32 [rows, 1024]
@group(0) @binding(1) var<storage, read_write> y: array<vec4<f32>>; // f32 [rows, 1024]

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let i = 256u * wg.x + lane;
  y[i] = x[i];
}
