// For each row b and each tile of `width` features of a window, at most 32:
//   tile_masks[tile0 + tile, b] = bit i is set where the tile's i-th act is not 0 (by bits, -0 included): an entry
//   tile_sums[tile0 + tile, b]  = sum_i acts[b, i] * weights[i], or with `counts` the number of acts > 0
// One invocation per row and tile, rows along the lanes.
@group(0) @binding(0) var<storage, read> acts: array<f32>;             // [B, window]
@group(0) @binding(1) var<storage, read> weights: array<f32>;          // [window]
@group(0) @binding(2) var<storage, read_write> tile_masks: array<u32>; // [n_tiles, B]
@group(0) @binding(3) var<storage, read_write> tile_sums: array<f32>;  // [n_tiles, B]
struct Uniforms { B: u32, window: u32, width: u32, tile0: u32, counts: u32 }
@group(0) @binding(4) var<uniform> u: Uniforms;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let b = wg.x * 64u + lane;
  if (b >= u.B) { return; }
  let first = wg.y * u.width;
  let n = min(u.width, u.window - first);
  var mask = 0u;
  var sum = 0.0;
  for (var i = 0u; i < n; i++) {
    let act = acts[b * u.window + first + i];
    mask |= u32(bitcast<u32>(act) != 0u) << i;
    sum += select(act * weights[first + i], f32(act > 0.0), u.counts != 0u);
  }
  let at = (u.tile0 + wg.y) * u.B + b;
  tile_masks[at] = mask;
  tile_sums[at] = sum;
}
