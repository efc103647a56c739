// Of each row: its largest logit and the first token that has it; masses of blocks relative to it;
// and a bound below which no filter keeps a token, so that few are left to look at.
//   top-k: k blocks have a token at or above the k-th largest of the blocks' largest logits
//   top-p: tokens of less than (1 - top_p) / vocab of the mass have less than 1 - top_p together
//   min-p: tokens of less than min_p
// With top-k the others would need the mass of the k tokens, which is not known yet.
// One workgroup of 128 per row, a lane per block; needs sample_words.wgsl.
@group(0) @binding(0) var<storage, read> settings: array<vec4<u32>>;   // [R, 2]
@group(0) @binding(1) var<storage, read> peaks: array<vec2<u32>>;      // [R, N_BLOCKS]: word, token
@group(0) @binding(2) var<storage, read_write> masses: array<f32>;     // [R, N_BLOCKS]
@group(0) @binding(3) var<storage, read_write> rows: array<vec4<u32>>; // [R]: top, its token, least, mass
struct Uniforms { R: u32, vocab: u32 }
@group(0) @binding(4) var<uniform> u: Uniforms;

const SLACK = 0.5; // far more than rounding
var<workgroup> words: array<u32, N_BLOCKS>;
var<workgroup> block_masses: array<f32, N_BLOCKS>;
var<workgroup> largest: atomic<u32>;
var<workgroup> first_inverted: atomic<u32>;
var<workgroup> kth: u32;

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n_wg: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
  let r = wg.y * n_wg.x + wg.x;
  if (r >= u.R) { return; }
  let i = r * N_BLOCKS + lane;
  let temperature = bitcast<f32>(settings[2u * r].x);
  let top_k = settings[2u * r].w;
  let is_block = lane < blocks_of(u.vocab);
  var peak = vec2<u32>(); // below all words
  if (is_block) { peak = peaks[i]; }
  words[lane] = peak.x;
  atomicMax(&largest, peak.x);
  workgroupBarrier();

  let top = atomicLoad(&largest);
  if (peak.x == top) { atomicMax(&first_inverted, ~peak.y); }
  var mass = 0.0;
  if (temperature >= SMALLEST_TEMPERATURE && !is_faulty(top)) {
    if (is_block) { mass = masses[i] * weight_of(peak.x, top, temperature); }
    masses[i] = mass;
  }
  block_masses[lane] = mass;
  if (top_k > 0u && top_k <= N_BLOCKS) {
    var rank = 0u;
    for (var b = 0u; b < N_BLOCKS; b++) {
      let is_before = words[b] > peak.x || (words[b] == peak.x && b < lane);
      rank += select(0u, 1u, is_before);
    }
    if (rank == top_k - 1u) { kth = peak.x; }
  }
  workgroupBarrier();
  if (lane != 0u) { return; }
  var total = 0.0;
  for (var b = 0u; b < N_BLOCKS; b++) { total += block_masses[b]; }
  var least = kth;
  if (top_k == 0u || top_k >= u.vocab) {
    let top_p = bitcast<f32>(settings[2u * r].y);
    let min_p = bitcast<f32>(settings[2u * r].z);
    let share = max((1.0 - top_p) * total / f32(u.vocab), min_p) * SLACK;
    if (share > 0.0) { least = ordered(bitcast<u32>(unordered(top) + temperature * log(share))); }
  }
  least = max(least, NEGATIVE_INFINITY + 1u);
  rows[r] = vec4<u32>(top, ~atomicLoad(&first_inverted), least, bitcast<u32>(total));
}
