// Lists the entries that the masks of a window's tiles tell, row by row and in the order of the features:
//   entries[e] = feature, act (f32 bits);  entry_rows[e / 4] = b     for e from row_start[b] + entries before the tile
// Rows are filled up to a multiple of 4 with entries of no feature by the last tile of all.
// One invocation per row and tile, rows along the lanes.
@group(0) @binding(0) var<storage, read> acts: array<u32>;                // [B, window], f32 bits
@group(0) @binding(1) var<storage, read> tile_masks: array<u32>;          // [n_tiles, B]
@group(0) @binding(2) var<storage, read> tile_starts: array<u32>;         // [n_tiles, B]
@group(0) @binding(3) var<storage, read> row_start: array<u32>;           // [n_starts], n_starts = B + 1
@group(0) @binding(4) var<storage, read_write> entries: array<vec2<u32>>; // [capacity]
@group(0) @binding(5) var<storage, read_write> entry_rows: array<u32>;    // [n_groups], n_groups = capacity / 4
struct Uniforms { B: u32, window: u32, n_tiles: u32, width: u32, tile0: u32, start: u32 }
@group(0) @binding(6) var<uniform> u: Uniforms;

const NONE = 0xffffffffu;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let b = wg.x * 64u + lane;
  if (b >= u.B) { return; }
  let tile = u.tile0 + wg.y;
  let first = wg.y * u.width;
  var mask = tile_masks[tile * u.B + b];
  if (mask != 0u) {
    var at = row_start[b] + tile_starts[tile * u.B + b];
    while (mask != 0u) {
      let i = first + countTrailingZeros(mask);
      entries[at] = vec2<u32>(u.start + i, acts[b * u.window + i]);
      at++;
      mask &= mask - 1u;
    }
  }
  if (tile == u.n_tiles - 1u) {
    let begin = row_start[b];
    let stop = row_start[b + 1u];
    let n = tile_starts[tile * u.B + b] + countOneBits(tile_masks[tile * u.B + b]);
    for (var at = begin + n; at < stop; at++) { entries[at] = vec2<u32>(NONE, 0u); }
    for (var g = begin / 4u; g < stop / 4u; g++) { entry_rows[g] = b; }
  }
}
