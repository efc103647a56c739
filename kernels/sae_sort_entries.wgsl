// The entries by feature, and for each feature by row: a counting sort.
//   columns[start of the feature + its marked rows before b] = b, act, dact
// One invocation per entry.
@group(0) @binding(0) var<storage, read> entries: array<vec2<u32>>;       // [capacity]: feature, act
@group(0) @binding(1) var<storage, read> entry_rows: array<u32>;          // [n_groups], n_groups = capacity / 4
@group(0) @binding(2) var<storage, read> row_start: array<u32>;           // [n_starts]; the last one is the number of entries
@group(0) @binding(3) var<storage, read> dacts: array<u32>;               // [n_dacts], f32 bits
@group(0) @binding(4) var<storage, read> bitmap: array<u32>;              // [window, words]
@group(0) @binding(5) var<storage, read> runs: array<vec2<u32>>;          // [window]
@group(0) @binding(6) var<storage, read> blocks: array<u32>;              // [n_blocks]
@group(0) @binding(7) var<storage, read_write> columns: array<vec4<u32>>; // [n_columns]
struct Uniforms { n_starts: u32, n_groups: u32, window: u32, words: u32, start: u32, block0: u32 }
@group(0) @binding(8) var<uniform> u: Uniforms;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n_wg: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
  let e = (wg.y * n_wg.x + wg.x) * 64u + lane;
  if (e >= row_start[u.n_starts - 1u]) { return; }
  let entry = entries[e];
  let feature = entry.x - u.start; // wraps to a large number outside of the window
  if (feature >= u.window) { return; }
  let b = entry_rows[e / 4u];
  let word = feature * u.words;
  var rank = countOneBits(bitmap[word + b / 32u] & ((1u << (b & 31u)) - 1u));
  for (var k = 0u; k < b / 32u; k++) { rank += countOneBits(bitmap[word + k]); }
  columns[blocks[u.block0 + feature / 256u] + runs[feature].x + rank] = vec4<u32>(b, entry.y, dacts[e], 0u);
}
