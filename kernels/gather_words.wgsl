// picked[i, :] = source[rows[i] - first, :]   where first ≤ rows[i] < first + rows_here
// One invocation per word of picked.
@group(0) @binding(0) var<storage, read> source: array<u32>;       // [rows_here, words]: rows from `first` on of a larger tensor
@group(0) @binding(1) var<storage, read> rows: array<u32>;         // [n]: rows of the larger tensor
@group(0) @binding(2) var<storage, read_write> picked: array<u32>; // [n, words]
struct Uniforms { n: u32, words: u32, first: u32, rows_here: u32 }
@group(0) @binding(3) var<uniform> u: Uniforms;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n_wg: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
  let at = (wg.y * n_wg.x + wg.x) * 64u + lane;
  if (at >= u.n * u.words) { return; }
  let row = rows[at / u.words];
  if (row < u.first || row - u.first >= u.rows_here) { return; }
  picked[at] = source[(row - u.first) * u.words + at % u.words];
}
