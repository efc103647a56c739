// partials[slot + w][column] = part w of the sum of squares over all rows that are touched, the other columns 0
// Workgroup w of n_parts adds every n_parts-th run of 64 groups of 4; needs reduce.wgsl. A fixed tree: same bits every time.
// columns is a multiple of 4.
@group(0) @binding(0) var<storage, read> values: array<vec4<f32>>;         // [rows, columns]
@group(0) @binding(1) var<storage, read> touched: array<u32>;              // [rows]
@group(0) @binding(2) var<storage, read_write> partials: array<vec4<f32>>; // [n_partials]
struct Uniforms { rows: u32, columns: u32, n_parts: u32, slot: u32, column: u32 }
@group(0) @binding(3) var<uniform> u: Uniforms;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let n = u.columns / 4u;
  var squares = vec4<f32>();
  for (var i = wg.x * 64u + lane; i < u.rows * n; i += u.n_parts * 64u) {
    if (touched[i / n] != 0u) { squares = fma(values[i], values[i], squares); }
  }
  let total = sum_lanes(dot(squares, vec4<f32>(1.0)), lane);
  if (lane == 0u) {
    var part = vec4<f32>();
    part[u.column] = total;
    partials[u.slot + wg.x] = part;
  }
}
