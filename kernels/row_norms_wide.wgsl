// norms[i] = sqrt(sum_j W[i, j]²)
// One invocation per row, without a workgroup's sums: fast on software drivers. columns is a multiple of 4.
@group(0) @binding(0) var<storage, read> W: array<vec4<f32>>;     // [rows, columns]
@group(0) @binding(1) var<storage, read_write> norms: array<f32>; // [rows]
struct Uniforms { rows: u32, columns: u32 }
@group(0) @binding(2) var<uniform> u: Uniforms;

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n_wg: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
  let i = (wg.y * n_wg.x + wg.x) * 8u + lane;
  if (i >= u.rows) { return; }
  let n = u.columns / 4u;
  var squares = vec4<f32>();
  for (var j = 0u; j < n; j++) {
    let w = W[i * n + j];
    squares = fma(w, w, squares);
  }
  norms[i] = sqrt(dot(squares, vec4<f32>(1.0)));
}
