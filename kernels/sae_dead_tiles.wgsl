// For each row b and each tile of `width` features of a window, at most 32:
//   tile_masks[tile0 + tile, b] = bit i is set where the tile's i-th feature is dead (waited >= dead_after tokens) and its
//   act above 0 and at or above the row's threshold: an entry of AuxK
//   tile_sums[tile0 + tile, b] = 0
// One invocation per row and tile, rows along the lanes. Needs sae_topk_key.wgsl.
@group(0) @binding(0) var<storage, read> acts: array<u32>;             // [B, window], f32 bits
@group(0) @binding(1) var<storage, read> thresholds: array<vec2<u32>>; // [B]: f32 bits, and a number not read here
@group(0) @binding(2) var<storage, read> waited: array<u32>;           // [window]
@group(0) @binding(3) var<storage, read_write> tile_masks: array<u32>; // [n_tiles, B]
@group(0) @binding(4) var<storage, read_write> tile_sums: array<f32>;  // [n_tiles, B]
struct Uniforms { B: u32, window: u32, width: u32, tile0: u32, dead_after: u32 }
@group(0) @binding(5) var<uniform> u: Uniforms;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let b = wg.x * 64u + lane;
  if (b >= u.B) { return; }
  let first = wg.y * u.width;
  let n = min(u.width, u.window - first);
  let threshold = thresholds[b].x;
  var mask = 0u;
  for (var i = 0u; i < n; i++) {
    let is_entry = waited[first + i] >= u.dead_after && topk_keeps(acts[b * u.window + first + i], threshold);
    mask |= u32(is_entry) << i;
  }
  let at = (u.tile0 + wg.y) * u.B + b;
  tile_masks[at] = mask;
  tile_sums[at] = 0.0;
}
