// rows[r].least = the least logit that top-k, top-p and min-p keep, applied in this order
//   top-k keeps the k largest logits, with all ties of the k-th
//   top-p keeps a token iff the strictly likelier ones have less than top_p of the mass; the
//   likeliest always
//   min-p keeps what is at least min_p times as likely as the likeliest
// rows[r].mass and masses[r, b] = what is kept.
// Of rows that have filters. One workgroup of 128 per row, 8 lanes per block of candidates; needs
// sample_words.wgsl. Nothing is sorted: the least word to keep is searched for, 4 bits a pass, by
// what lies in 16 bins; words in other bins than the one found are left behind.
@group(0) @binding(0) var<storage, read> settings: array<vec4<u32>>;   // [R, 2]
@group(0) @binding(1) var<storage, read> candidates: array<u32>;       // [R, capacity]
@group(0) @binding(2) var<storage, read> n_candidates: array<u32>;     // [R, N_BLOCKS]
@group(0) @binding(3) var<storage, read_write> left: array<u32>;       // [R, capacity]: of each lane every 128th
@group(0) @binding(4) var<storage, read_write> masses: array<f32>;     // [R, N_BLOCKS]
@group(0) @binding(5) var<storage, read_write> rows: array<vec4<u32>>; // [R]: top, its token, least, mass
struct Uniforms { R: u32, vocab: u32 }
@group(0) @binding(6) var<uniform> u: Uniforms;

const LANES = 128u;
const GROUPS = 16u; // of 8 lanes
const BINS = 16u;
const SOME_MASS = 1e-30; // top_p = 0 asks for the likeliest token, which weighs 1

struct Row { first: u32, top: u32, temperature: f32 }
struct Bin { base: u32, above: f32, is_last: u32 } // from `base` on; what lies above the bin

var<workgroup> state: vec4<u32>;
var<workgroup> sizes: array<u32, N_BLOCKS>; // candidates of each block
var<workgroup> bins: array<f32, 2048>;      // [BINS, LANES]
var<workgroup> part_sums: array<f32, LANES>; // [BINS, 8]
var<workgroup> totals: array<f32, BINS>;
var<workgroup> found: Bin;
var<workgroup> block_sums: array<f32, 1024>; // [N_BLOCKS, 8]
var<workgroup> block_masses: array<f32, N_BLOCKS>;
var<workgroup> lowest_inverted: atomic<u32>;

fn add_up(row: Row, lane: u32, word: u32, base: u32, shift: u32, by_mass: bool) {
  var amount = 1.0;
  if (by_mass) { amount = weight_of(word, row.top, row.temperature); }
  bins[min((word - base) >> shift, BINS - 1u) * LANES + lane] += amount;
}

// totals[j] = what lies in bin j, over all lanes.
fn sum_bins(lane: u32) {
  workgroupBarrier();
  let begin = (lane / 8u) * LANES + (lane % 8u) * (LANES / 8u);
  var part = 0.0;
  for (var i = 0u; i < LANES / 8u; i++) { part += bins[begin + i]; }
  part_sums[lane] = part;
  workgroupBarrier();
  if (lane < BINS) {
    var sum = 0.0;
    for (var i = 0u; i < 8u; i++) { sum += part_sums[8u * lane + i]; }
    totals[lane] = sum;
  }
  workgroupBarrier();
}

// The bin in which the sum from the top reaches `need`; the lowest where it does not.
fn choose_bin(base: u32, shift: u32, above: f32, need: f32, by_mass: bool) -> Bin {
  var j = BINS - 1u;
  var over = above;
  while (j > 0u && over + totals[j] < need) {
    over += totals[j];
    j--;
  }
  // As many words as needed: the search is over, as none of the bin is too much.
  let is_exact = !by_mass && over + totals[j] == need;
  return Bin(base + (j << shift), over, select(0u, 1u, is_exact || shift == 0u));
}

// A word from which on there are `need` words or more, or `need` of the mass, and above which there
// are fewer. Only words from `least` on count; it is returned where all together do not reach `need`.
fn search(row: Row, lane: u32, least: u32, by_mass: bool, need: f32) -> u32 {
  var bin = Bin(least, 0.0, 0u);
  var shift = 28u - min(countLeadingZeros(row.top - least), 28u);
  var width = 0u; // of the bin found, as a shift
  var n_left = 0u;
  for (var pass_index = 0u; bin.is_last == 0u; pass_index++) {
    for (var j = 0u; j < BINS; j++) { bins[j * LANES + lane] = 0.0; }
    if (pass_index == 0u) {
      for (var b = lane / 8u; b < N_BLOCKS; b += GROUPS) {
        let start = row.first + span_of(b, u.vocab).start;
        let end = start + sizes[b];
        for (var i = start + lane % 8u; i < end; i += 8u) {
          let word = candidates[i];
          if (word >= least) {
            add_up(row, lane, word, least, shift, by_mass);
            left[row.first + n_left * LANES + lane] = word;
            n_left++;
          }
        }
      }
    } else {
      var n = 0u;
      for (var i = 0u; i < n_left; i++) {
        let word = left[row.first + i * LANES + lane];
        if (word >= bin.base && (word - bin.base) >> width == 0u) {
          add_up(row, lane, word, bin.base, shift, by_mass);
          left[row.first + n * LANES + lane] = word;
          n++;
        }
      }
      n_left = n;
    }
    sum_bins(lane);
    if (lane == 0u) { found = choose_bin(bin.base, shift, bin.above, need, by_mass); }
    bin = workgroupUniformLoad(&found);
    width = shift;
    shift = max(shift, 4u) - 4u;
  }
  return bin.base;
}

// Sums up what is kept, by block and as a whole, and finds the least word of it.
fn sum_kept(row: Row, lane: u32, least: u32, min_p: f32) {
  if (lane == 0u) { atomicStore(&lowest_inverted, 0u); }
  workgroupBarrier();
  var lowest = 0xffffffffu;
  for (var b = lane / 8u; b < N_BLOCKS; b += GROUPS) {
    let start = row.first + span_of(b, u.vocab).start;
    let end = start + sizes[b];
    var sum = 0.0;
    for (var i = start + lane % 8u; i < end; i += 8u) {
      let word = candidates[i];
      let weight = weight_of(word, row.top, row.temperature);
      if (word >= least && weight >= min_p) {
        sum += weight;
        lowest = min(lowest, word);
      }
    }
    block_sums[8u * b + lane % 8u] = sum;
  }
  atomicMax(&lowest_inverted, ~lowest);
  workgroupBarrier();
  var mass = 0.0;
  for (var i = 0u; i < 8u; i++) { mass += block_sums[8u * lane + i]; }
  block_masses[lane] = mass;
  workgroupBarrier();
}

fn total_kept() -> f32 {
  var total = 0.0;
  for (var b = 0u; b < N_BLOCKS; b++) { total += block_masses[b]; }
  return total;
}

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n_wg: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
  let r = wg.y * n_wg.x + wg.x;
  if (r >= u.R) { return; }
  if (!is_filtered(settings[2u * r], u.vocab)) { return; }
  let temperature = bitcast<f32>(settings[2u * r].x);
  let top_p = bitcast<f32>(settings[2u * r].y);
  let min_p = bitcast<f32>(settings[2u * r].z);
  let top_k = settings[2u * r].w;
  if (lane == 0u) { state = rows[r]; }
  if (lane < blocks_of(u.vocab)) { sizes[lane] = n_candidates[r * N_BLOCKS + lane]; }
  let known = workgroupUniformLoad(&state);
  let row = Row(r * N_BLOCKS * span_size(u.vocab), known.x, temperature);
  if (is_faulty(row.top)) { return; }

  var least = known.z;
  var mass = bitcast<f32>(known.w);
  if (top_k > 0u && top_k < u.vocab) {
    least = search(row, lane, least, false, f32(top_k));
    if (top_p < 1.0) {
      sum_kept(row, lane, least, 0.0);
      mass = total_kept();
      workgroupBarrier();
    }
  }
  if (top_p < 1.0) { least = search(row, lane, least, true, max(top_p * mass, SOME_MASS)); }
  sum_kept(row, lane, least, min_p);
  masses[r * N_BLOCKS + lane] = block_masses[lane];
  if (lane == 0u) {
    rows[r].z = ~atomicLoad(&lowest_inverted);
    rows[r].w = bitcast<u32>(total_kept());
  }
}
