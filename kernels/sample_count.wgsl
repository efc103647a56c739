// counts[row of counts, tokens[row]] += 1, for each row that has penalties
// One thread per row; no two rows share a row of counts.
@group(0) @binding(0) var<storage, read> penalties: array<u32>;    // [n, 5]: row, row of counts, …
@group(0) @binding(1) var<storage, read> tokens: array<u32>;       // [R]
@group(0) @binding(2) var<storage, read_write> counts: array<u32>; // [rows, vocab]
struct Uniforms { n: u32, vocab: u32 }
@group(0) @binding(3) var<uniform> u: Uniforms;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n_wg: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
  let i = (wg.y * n_wg.x + wg.x) * 64u + lane;
  if (i >= u.n) { return; }
  let token = tokens[penalties[5u * i]];
  if (token < u.vocab) { counts[penalties[5u * i + 1u] * u.vocab + token] += 1u; }
}
