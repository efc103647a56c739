// x[b, :] = scale * rows[index[b] - first_row, :]   for the b whose row lies in this window of the rows
// One invocation per word, that is two elements of a row; d_model is even.
@group(0) @binding(0) var<storage, read> rows: array<u32>;    // bf16 [n, d_model]
@group(0) @binding(1) var<storage, read> index: array<u32>;   // [B]
@group(0) @binding(2) var<storage, read_write> x: array<f32>; // [B, d_model]
struct Uniforms { n: u32, d_model: u32, B: u32, first_row: u32, scale: f32 }
@group(0) @binding(3) var<uniform> u: Uniforms;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n_wg: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
  let row_words = u.d_model / 2u;
  let at = (wg.y * n_wg.x + wg.x) * 64u + lane;
  if (at >= u.B * row_words) { return; }
  let row = index[at / row_words];
  if (row < u.first_row || row - u.first_row >= u.n) { return; }
  let word = rows[(row - u.first_row) * row_words + at % row_words];
  x[2u * at] = u.scale * bitcast<f32>(word << 16u);
  x[2u * at + 1u] = u.scale * bitcast<f32>(word & 0xffff0000u);
}
