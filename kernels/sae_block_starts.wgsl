// blocks[i] = sum of all blocks before i, in place
// One workgroup of 64: each lane owns a run of blocks.
@group(0) @binding(0) var<storage, read_write> blocks: array<u32>; // [n_blocks]
struct Uniforms { n_blocks: u32 }
@group(0) @binding(1) var<uniform> u: Uniforms;

var<workgroup> totals: array<u32, 64>;

@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) lane: u32) {
  let run = (u.n_blocks + 63u) / 64u;
  let begin = min(lane * run, u.n_blocks);
  let end = min(begin + run, u.n_blocks);
  var total = 0u;
  for (var i = begin; i < end; i++) { total += blocks[i]; }
  totals[lane] = total;
  workgroupBarrier();
  var at = 0u;
  for (var other = 0u; other < lane; other++) { at += totals[other]; }
  for (var i = begin; i < end; i++) {
    let n = blocks[i];
    blocks[i] = at;
    at += n;
  }
}
