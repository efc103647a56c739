// Of each block of each row: the largest logit, the first token that has it, and
//   masses[r, b] = sum of exp((logits[r, v] - largest of the block) / temperature)
// One workgroup of 64 per block; needs sample_words.wgsl and reduce.wgsl.
@group(0) @binding(0) var<storage, read> logits: array<u32>;            // [R, vocab], f32 bits
@group(0) @binding(1) var<storage, read> settings: array<vec4<u32>>;    // [R, 2]
@group(0) @binding(2) var<storage, read_write> peaks: array<vec2<u32>>; // [R, N_BLOCKS]: word, token
@group(0) @binding(3) var<storage, read_write> masses: array<f32>;      // [R, N_BLOCKS]
struct Uniforms { R: u32, vocab: u32 }
@group(0) @binding(4) var<uniform> u: Uniforms;

var<workgroup> largest: atomic<u32>;
var<workgroup> first_inverted: atomic<u32>;
var<workgroup> shared_top: u32;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n_wg: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
  let n_blocks = blocks_of(u.vocab);
  let r = (wg.y * n_wg.x + wg.x) / n_blocks;
  let block = (wg.y * n_wg.x + wg.x) % n_blocks;
  if (r >= u.R) { return; }
  let i = r * N_BLOCKS + block;
  let row = r * u.vocab;
  let span = span_of(block, u.vocab);
  var most = 0u;
  var at = 0u;
  for (var v = span.start + lane; v < span.end; v += 64u) {
    let word = ordered(logits[row + v]);
    at = select(at, v, word > most);
    most = max(most, word);
  }
  atomicMax(&largest, most);
  workgroupBarrier();
  if (lane == 0u) { shared_top = atomicLoad(&largest); }
  let top = workgroupUniformLoad(&shared_top);
  if (most == top) { atomicMax(&first_inverted, ~at); }
  workgroupBarrier();
  if (lane == 0u) { peaks[i] = vec2<u32>(top, ~atomicLoad(&first_inverted)); }

  let temperature = bitcast<f32>(settings[2u * r].x);
  if (temperature < SMALLEST_TEMPERATURE) { return; }
  var sum = 0.0;
  if (!is_faulty(top)) {
    for (var v = span.start + lane; v < span.end; v += 64u) {
      sum += weight_of(ordered(logits[row + v]), top, temperature);
    }
  }
  let mass = sum_lanes(sum, lane);
  if (lane == 0u) { masses[i] = mass; }
}
