// AuxK's loss and what its gradient is scaled by, for one batch. With e = x - x̂ = -err and u = ê - e:
//   V = mean_b ‖e - mean_b e‖² = Σ err² / B - ‖mean‖²
//   aux[0] = factor / V          (factor = 2·coefficient / rows of the step: the gradient of ê is aux[0]·u)
//   aux[1] = (adds ? aux[1] : 0) + share · (Σ u² / B) / V
// Both add nothing without entries, with more than `most` (then no gradient is made), or where V is not above 0. One workgroup of 64; needs reduce.wgsl.
@group(0) @binding(0) var<storage, read> mean: array<f32>;          // [d_model]: mean_b err
@group(0) @binding(1) var<storage, read> squares: array<vec4<f32>>; // [n_squares]: parts of Σ err² (y) and of Σ u² (z)
@group(0) @binding(2) var<storage, read> row_start: array<u32>;     // [n_starts]; the last one is the number of entries
@group(0) @binding(3) var<storage, read_write> aux: array<f32>;     // [4]
struct Uniforms { d_model: u32, n_squares: u32, n_starts: u32, B: u32, most: u32, adds: u32, factor: f32, share: f32 }
@group(0) @binding(4) var<uniform> u: Uniforms;

@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) lane: u32) {
  var of_mean = 0.0;
  for (var j = lane; j < u.d_model; j += 64u) { of_mean += mean[j] * mean[j]; }
  var sum = vec4<f32>();
  for (var i = lane; i < u.n_squares; i += 64u) { sum += squares[i]; }
  let mean_square = sum_lanes(of_mean, lane);
  let err = sum_lanes(sum.y, lane);
  let rest = sum_lanes(sum.z, lane);
  if (lane != 0u) { return; }
  let variance = err / f32(u.B) - mean_square;
  let entries = row_start[u.n_starts - 1u];
  let counts = variance > 0.0 && entries > 0u && entries <= u.most;
  aux[0] = select(0.0, u.factor / variance, counts);
  let before = select(0.0, aux[1], u.adds != 0u);
  aux[1] = before + select(0.0, u.share * rest / f32(u.B) / variance, counts);
}
