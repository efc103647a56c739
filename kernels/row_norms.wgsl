// norms[i] = sqrt(sum_j W[i, j]²)
// One workgroup of 64 per row; needs reduce.wgsl.
@group(0) @binding(0) var<storage, read> W: array<f32>;           // [rows, columns]
@group(0) @binding(1) var<storage, read_write> norms: array<f32>; // [rows]
struct Uniforms { rows: u32, columns: u32 }
@group(0) @binding(2) var<uniform> u: Uniforms;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n_wg: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
  let i = wg.y * n_wg.x + wg.x;
  if (i >= u.rows) { return; }
  let row = i * u.columns;
  var squares = 0.0;
  for (var j = lane; j < u.columns; j += 64u) { squares += W[row + j] * W[row + j]; }
  let total = sum_lanes(squares, lane);
  if (lane == 0u) { norms[i] = sqrt(total); }
}
