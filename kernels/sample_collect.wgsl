// candidates[r, block's first, …] = the block's logits at or above the row's bound, as ordered words
// n_candidates[r, b] = how many
// Of rows that have filters. One workgroup of 64 per block, each lane over consecutive tokens;
// needs sample_words.wgsl.
@group(0) @binding(0) var<storage, read> logits: array<u32>;             // [R, vocab], f32 bits
@group(0) @binding(1) var<storage, read> settings: array<vec4<u32>>;     // [R, 2]
@group(0) @binding(2) var<storage, read> peaks: array<vec2<u32>>;        // [R, N_BLOCKS]: word, token
@group(0) @binding(3) var<storage, read> rows: array<vec4<u32>>;         // [R]: top, its token, least, mass
@group(0) @binding(4) var<storage, read_write> candidates: array<u32>;   // [R, capacity]
@group(0) @binding(5) var<storage, read_write> n_candidates: array<u32>; // [R, N_BLOCKS]
struct Uniforms { R: u32, vocab: u32 }
@group(0) @binding(6) var<uniform> u: Uniforms;

var<workgroup> lane_counts: array<u32, 64>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n_wg: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
  let n_blocks = blocks_of(u.vocab);
  let r = (wg.y * n_wg.x + wg.x) / n_blocks;
  let block = (wg.y * n_wg.x + wg.x) % n_blocks;
  if (r >= u.R) { return; }
  let i = r * N_BLOCKS + block;
  if (!is_filtered(settings[2u * r], u.vocab)) { return; }
  let row = r * u.vocab;
  let least = rows[r].z;
  if (peaks[i].x < least) {
    if (lane == 0u) { n_candidates[i] = 0u; }
    return;
  }
  let span = span_of(block, u.vocab);
  let share = (span.end - span.start + 63u) / 64u;
  let start = min(span.start + lane * share, span.end);
  let end = min(start + share, span.end);
  var n = 0u;
  for (var v = start; v < end; v++) {
    n += select(0u, 1u, ordered(logits[row + v]) >= least);
  }
  lane_counts[lane] = n;
  workgroupBarrier();
  if (lane == 0u) {
    for (var j = 1u; j < 64u; j++) { lane_counts[j] += lane_counts[j - 1u]; }
    n_candidates[i] = lane_counts[63];
  }
  workgroupBarrier();
  var at = lane_counts[lane] - n;
  at += r * N_BLOCKS * span_size(u.vocab) + span.start;
  for (var v = start; v < end; v++) {
    let word = ordered(logits[row + v]);
    if (word >= least) {
      candidates[at] = word;
      at++;
    }
  }
}
