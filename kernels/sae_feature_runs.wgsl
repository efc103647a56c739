// runs[i] = number of feature i's entries that come before it within its block of 256 features, number of its entries
// blocks[start / 256 + block] = number of entries of the block;  sae_block_starts makes them starts
// One workgroup of 64 per block, 4 features a lane.
@group(0) @binding(0) var<storage, read> bitmap: array<u32>;           // [window, words]
@group(0) @binding(1) var<storage, read_write> runs: array<vec2<u32>>; // [window]
@group(0) @binding(2) var<storage, read_write> blocks: array<u32>;     // [n_blocks]
struct Uniforms { window: u32, words: u32, block0: u32 }
@group(0) @binding(3) var<uniform> u: Uniforms;

var<workgroup> totals: array<u32, 64>;

fn entries_of(feature: u32) -> u32 {
  var count = 0u;
  if (feature < u.window) {
    for (var word = 0u; word < u.words; word++) { count += countOneBits(bitmap[feature * u.words + word]); }
  }
  return count;
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let first = wg.x * 256u + 4u * lane;
  let counts = vec4<u32>(entries_of(first), entries_of(first + 1u), entries_of(first + 2u), entries_of(first + 3u));
  totals[lane] = counts.x + counts.y + counts.z + counts.w;
  workgroupBarrier();
  var before = 0u;
  for (var other = 0u; other < lane; other++) { before += totals[other]; }
  for (var k = 0u; k < 4u; k++) {
    if (first + k < u.window) { runs[first + k] = vec2<u32>(before, counts[k]); }
    before += counts[k];
  }
  if (lane == 63u) { blocks[u.block0 + wg.x] = before; }
}
