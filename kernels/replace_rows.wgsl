// x[t, :] = source[min(t, rows - 1), :]   for tokens at position ≥ first_position; one row of source serves all tokens
// One invocation per element of x.
@group(0) @binding(0) var<storage, read> source: array<f32>;       // [rows, d_model], rows = T or 1
@group(0) @binding(1) var<storage, read> places: array<vec2<u32>>; // [T]: row, position
@group(0) @binding(2) var<storage, read_write> x: array<f32>;      // [T, d_model]
struct Uniforms { T: u32, d_model: u32, rows: u32, first_position: u32 }
@group(0) @binding(3) var<uniform> u: Uniforms;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n_wg: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
  let at = (wg.y * n_wg.x + wg.x) * 64u + lane;
  if (at >= u.T * u.d_model) { return; }
  let t = at / u.d_model;
  if (places[t].y < u.first_position) { return; }
  x[at] = source[min(t, u.rows - 1u) * u.d_model + at % u.d_model];
}
