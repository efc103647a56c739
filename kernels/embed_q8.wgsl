// resid[t, :] = table[ids[t] - first_row, :]   for the tokens whose row lies in this window of the table
// One invocation per element of resid. table is q8 (see quantized_rows.wgsl).
@group(0) @binding(0) var<storage, read> ids: array<u32>;         // [T]
@group(0) @binding(1) var<storage, read> table: array<u32>;       // [rows, d_model]
@group(0) @binding(2) var<storage, read_write> resid: array<f32>; // [T, d_model]
struct Uniforms { T: u32, d_model: u32, rows: u32, first_row: u32 }
@group(0) @binding(3) var<uniform> u: Uniforms;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n_wg: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
  let at = (wg.y * n_wg.x + wg.x) * 64u + lane;
  if (at >= u.T * u.d_model) { return; }
  let row = ids[at / u.d_model];
  if (row < u.first_row || row >= u.first_row + u.rows) { return; }
  let k = at % u.d_model;
  let first = (row - u.first_row) * row_words(u.d_model);
  let scale = scale_in(table[first + level_words(u.d_model) + k / 64u], k / 32u);
  resid[at] = scale * level_in(table[first + k / PER_WORD], k);
}
