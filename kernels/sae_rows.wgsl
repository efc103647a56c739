// Over the tiles of each row b:
//   tile_starts[tile, b] = entries of the row before the tile,  row_entries[b] = all of them
// and per workgroup its part of sum tile_sums (partials[..].z) and of the number of entries (partials[..].w).
// One invocation per row; needs reduce.wgsl.
@group(0) @binding(0) var<storage, read> tile_masks: array<u32>;           // [n_tiles, B]
@group(0) @binding(1) var<storage, read> tile_sums: array<f32>;            // [n_tiles, B]
@group(0) @binding(2) var<storage, read_write> tile_starts: array<u32>;    // [n_tiles, B]
@group(0) @binding(3) var<storage, read_write> row_entries: array<u32>;    // [B]
@group(0) @binding(4) var<storage, read_write> partials: array<vec4<f32>>; // [n_partials]
struct Uniforms { n_tiles: u32, B: u32, slot: u32 }
@group(0) @binding(5) var<uniform> u: Uniforms;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let b = wg.x * 64u + lane;
  var count = 0u;
  var sum = 0.0;
  if (b < u.B) {
    for (var tile = 0u; tile < u.n_tiles; tile++) {
      let at = tile * u.B + b;
      tile_starts[at] = count;
      count += countOneBits(tile_masks[at]);
      sum += tile_sums[at];
    }
    row_entries[b] = count;
  }
  let total = sum_lanes(sum, lane);
  let entries = sum_lanes(f32(count), lane);
  if (lane == 0u) { partials[u.slot + wg.x] = vec4<f32>(0.0, 0.0, total, entries); }
}
