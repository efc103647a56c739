// x[b, :] = scale * rows[b, :]     (bf16 rows as they lie in residual shards; the even element is the lower half)
// One invocation per word, that is two elements.
@group(0) @binding(0) var<storage, read> rows: array<u32>;    // bf16 [B, d_model]
@group(0) @binding(1) var<storage, read_write> x: array<f32>; // [B, d_model]
struct Uniforms { B: u32, d_model: u32, scale: f32 }
@group(0) @binding(2) var<uniform> u: Uniforms;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n_wg: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
  let n = u.B * u.d_model;
  let at = 2u * ((wg.y * n_wg.x + wg.x) * 64u + lane);
  if (at >= n) { return; }
  let word = rows[at / 2u];
  x[at] = u.scale * bitcast<f32>(word << 16u);
  if (at + 1u < n) { x[at + 1u] = u.scale * bitcast<f32>(word & 0xffff0000u); }
}
