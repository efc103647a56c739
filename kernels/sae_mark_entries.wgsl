// bitmap[feature_e, b / 32] |= 1 << b % 32     for every entry e of row b: which rows a feature has
// One invocation per entry. Bits do not depend on the order in which they are set.
@group(0) @binding(0) var<storage, read> entries: array<vec2<u32>>;          // [capacity]: feature, act
@group(0) @binding(1) var<storage, read> entry_rows: array<u32>;             // [n_groups], n_groups = capacity / 4
@group(0) @binding(2) var<storage, read> row_start: array<u32>;              // [n_starts]; the last one is the number of entries
@group(0) @binding(3) var<storage, read_write> bitmap: array<atomic<u32>>;   // [window, words]
struct Uniforms { n_starts: u32, n_groups: u32, window: u32, words: u32, start: u32 }
@group(0) @binding(4) var<uniform> u: Uniforms;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n_wg: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
  let e = (wg.y * n_wg.x + wg.x) * 64u + lane;
  if (e >= row_start[u.n_starts - 1u]) { return; }
  let feature = entries[e].x - u.start; // wraps to a large number outside of the window
  if (feature >= u.window) { return; }
  let b = entry_rows[e / 4u];
  atomicOr(&bitmap[feature * u.words + b / 32u], 1u << (b & 31u));
}
