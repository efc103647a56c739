// partials[slot + w][column] = part w of sum_i values[i]², the other columns 0
// Workgroup w of n_parts adds every n_parts-th run of 64; needs reduce.wgsl. A fixed tree: same bits every time.
@group(0) @binding(0) var<storage, read> values: array<f32>;              // [n]
@group(0) @binding(1) var<storage, read_write> partials: array<vec4<f32>>; // [n_partials]
struct Uniforms { n: u32, n_parts: u32, slot: u32, column: u32 }
@group(0) @binding(2) var<uniform> u: Uniforms;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  var squares = 0.0;
  for (var i = wg.x * 64u + lane; i < u.n; i += u.n_parts * 64u) { squares += values[i] * values[i]; }
  let total = sum_lanes(squares, lane);
  if (lane == 0u) {
    var part = vec4<f32>();
    part[u.column] = total;
    partials[u.slot + wg.x] = part;
  }
}
