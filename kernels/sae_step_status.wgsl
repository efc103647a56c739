// Totals of the partial sums, and what follows from them, for one training step of `rows` vectors:
//   mse = Σ err² / rows,  sparsity = Σ of the tiles / rows,  l0 = entries / rows,  loss = mse + lambda·sparsity + aux_weight·aux loss
//   grad_norm = sqrt(Σ grad²),  clip = min(1, max_norm / (grad_norm + 1e-6))      (PyTorch's clip_grad_norm_)
// The first step with a value that is not finite is kept with its values: Adam then changes nothing any more.
// One workgroup of 64; needs reduce.wgsl.
@group(0) @binding(0) var<storage, read> partials: array<vec4<f32>>; // [n_partials]: grad², err², tile sums, entries
@group(0) @binding(1) var<storage, read> aux: array<f32>;            // [4]: factor, loss
@group(0) @binding(2) var<storage, read> branch: array<u32>;         // [1]: 1 for the sparse path
@group(0) @binding(3) var<storage, read> dead: array<u32>;           // [1]
@group(0) @binding(4) var<storage, read_write> status: array<u32>;   // [12]: see STATUS_WORDS
struct Uniforms { n_partials: u32, rows: u32, step: u32, lambda: f32, aux_weight: f32, max_norm: f32 }
@group(0) @binding(5) var<uniform> u: Uniforms;

// By bits: compilers may assume that no value is NaN.
fn is_finite(value: f32) -> bool { return (bitcast<u32>(value) & 0x7f800000u) != 0x7f800000u; }

@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) lane: u32) {
  var sum = vec4<f32>();
  for (var i = lane; i < u.n_partials; i += 64u) { sum += partials[i]; }
  let grad = sum_lanes(sum.x, lane);
  let err = sum_lanes(sum.y, lane);
  let tiles = sum_lanes(sum.z, lane);
  let entries = sum_lanes(sum.w, lane);
  if (lane != 0u || status[6] != 0u) { return; }
  let mse = err / f32(u.rows);
  let sparsity = tiles / f32(u.rows);
  let loss = mse + u.lambda * sparsity + u.aux_weight * aux[1];
  let grad_norm = sqrt(grad);
  status[0] = bitcast<u32>(loss);
  status[1] = bitcast<u32>(mse);
  status[2] = bitcast<u32>(sparsity);
  status[3] = bitcast<u32>(entries / f32(u.rows));
  status[4] = bitcast<u32>(grad_norm);
  status[5] = bitcast<u32>(min(1.0, u.max_norm / (grad_norm + 1e-6)));
  let what = select(1u, 0u, is_finite(err)) | select(2u, 0u, is_finite(tiles)) |
    select(4u, 0u, is_finite(grad)) | select(8u, 0u, is_finite(loss));
  status[6] = select(u.step + 1u, 0u, what == 0u);
  status[7] = what;
  status[8] = bitcast<u32>(aux[1]);
  status[9] = branch[0];
  status[10] = dead[0];
}
