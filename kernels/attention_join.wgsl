// z[t, h] = sum_p share(p) sums[t, h, p] / sum_p share(p) total(p),  share(p) = exp(most(p) - max_p most(p))
// One invocation per 4 elements of z. A part without keys has total 0, and its sums may be anything.
@group(0) @binding(0) var<storage, read> sums: array<vec4<f32>>;    // [T, heads, n_parts, D4 + 1]: sum; most, total
@group(0) @binding(1) var<storage, read_write> z: array<vec4<f32>>; // [T, d_q]
struct Uniforms { T: u32, d_q: u32, n_parts: u32 }
@group(0) @binding(2) var<uniform> u: Uniforms;
// const D4: d_head / 4, appended by the declaration.

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n_wg: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
  let at = (wg.y * n_wg.x + wg.x) * 64u + lane;
  if (at >= u.T * (u.d_q / 4u)) { return; }
  let first = at / D4 * u.n_parts * (D4 + 1u);
  var sum = vec4<f32>();
  var most = -3.0e38;
  var total = 0.0;
  for (var p = 0u; p < u.n_parts; p++) {
    let part = first + p * (D4 + 1u);
    let stats = sums[part + D4];
    if (stats.y == 0.0) { continue; }
    let larger = max(most, stats.x);
    let keep = exp(most - larger);
    let share = exp(stats.x - larger);
    sum = sum * keep + sums[part + at % D4] * share;
    total = total * keep + stats.y * share;
    most = larger;
  }
  z[at] = sum / total;
}
