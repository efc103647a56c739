// probs[r, :] = the distribution of row r's next token, after temperature, top-k, top-p and min-p in order
//   top-k keeps the k largest logits, with all ties of the k-th
//   top-p keeps a token iff the strictly likelier ones have less than top_p of the mass; the
//   likeliest always
//   min-p keeps what is at least min_p times as likely as the likeliest
//   temperature 0 gives all mass to the first largest logit
// A row that holds NaN or +inf, or nothing finite, becomes NaN, so that no token comes of it.
// One workgroup of 128 per row. Nothing is sorted: floats become words of the same order, and the
// least word to keep is searched for, 4 bits a pass, by what lies at or above 16 thresholds.
// Floats are bound as words because drivers may assume that there is no NaN.
@group(0) @binding(0) var<storage, read> logits: array<u32>;         // [R, vocab], f32 bits
@group(0) @binding(1) var<storage, read> settings: array<vec4<u32>>; // [R, 2]: see below
@group(0) @binding(2) var<storage, read_write> probs: array<u32>;    // [R, vocab], f32 bits
// settings: temperature, top_p, min_p (f32 bits), top_k (0 is off); then what sample_pick reads
struct Uniforms { R: u32, vocab: u32 }
@group(0) @binding(3) var<uniform> u: Uniforms;

const LANES = 128u;
const PARTS = 8u;
const POSITIVE_INFINITY = 0xff800000u; // as ordered words; NaN is above
const NEGATIVE_INFINITY = 0x007fffffu;
const NAN_BITS = 0x7fc00000u;
const ONE_BITS = 0x3f800000u;
const SOME_MASS = 1e-30; // top_p = 0 asks for the likeliest token, which weighs 1
const SMALLEST_TEMPERATURE = 1.2e-38; // division may flush what is below; it counts as 0

var<workgroup> lane_sums: array<vec4<f32>, 512>; // [4, LANES]
var<workgroup> part_sums: array<vec4<f32>, 32>;  // [PARTS, 4]
var<workgroup> totals: array<vec4<f32>, 4>;
var<workgroup> found: u32;
var<workgroup> kept_mass: f32;
var<workgroup> largest: atomic<u32>;
var<workgroup> first_inverted: atomic<u32>;

fn ordered(bits: u32) -> u32 {
  if ((bits & 0x7fffffffu) > 0x7f800000u) { return 0xffffffffu; }
  let value = select(bits, 0u, bits == 0x80000000u); // -0 ties with 0
  return select(value | 0x80000000u, ~value, value >= 0x80000000u);
}

fn unordered(word: u32) -> f32 {
  return bitcast<f32>(select(~word, word & 0x7fffffffu, word >= 0x80000000u));
}

// totals[j] = what lies at or above base + (j << shift), for j = 0 .. 15: a number of words, or
// their mass as floats.
fn weigh(row: u32, lane: u32, base: u32, shift: u32, by_mass: bool) {
  let j = vec4<u32>(0u, 1u, 2u, 3u);
  let t0 = base + (j << vec4<u32>(shift));
  let t1 = base + ((j + 4u) << vec4<u32>(shift));
  let t2 = base + ((j + 8u) << vec4<u32>(shift));
  let t3 = base + ((j + 12u) << vec4<u32>(shift));
  var s0 = vec4<f32>();
  var s1 = vec4<f32>();
  var s2 = vec4<f32>();
  var s3 = vec4<f32>();
  for (var v = lane; v < u.vocab; v += LANES) {
    let word = vec4<u32>(probs[row + v]);
    let amount = select(vec4<f32>(1.0), bitcast<vec4<f32>>(word), by_mass);
    s0 += select(vec4<f32>(), amount, word >= t0);
    s1 += select(vec4<f32>(), amount, word >= t1);
    s2 += select(vec4<f32>(), amount, word >= t2);
    s3 += select(vec4<f32>(), amount, word >= t3);
  }
  lane_sums[lane] = s0;
  lane_sums[LANES + lane] = s1;
  lane_sums[2u * LANES + lane] = s2;
  lane_sums[3u * LANES + lane] = s3;
  workgroupBarrier();
  if (lane < 4u * PARTS) {
    let begin = (lane % 4u) * LANES + (lane / 4u) * (LANES / PARTS);
    var sum = vec4<f32>();
    for (var i = 0u; i < LANES / PARTS; i++) { sum += lane_sums[begin + i]; }
    part_sums[lane] = sum;
  }
  workgroupBarrier();
  if (lane < 4u) {
    var sum = vec4<f32>();
    for (var i = 0u; i < PARTS; i++) { sum += part_sums[4u * i + lane]; }
    totals[lane] = sum;
  }
  workgroupBarrier();
}

// The largest word for which those at or above it number `need`, or have `need` of all mass;
// `kept_mass` is what they have. Sums at higher thresholds add fewer terms in the same order, so
// they are never larger, even as rounded. A single pass only sums everything up.
fn search(row: u32, lane: u32, by_mass: bool, need: f32, n_passes: u32) -> u32 {
  var base = 0u;
  var enough = need;
  for (var n = 0u; n < n_passes; n++) {
    let shift = 28u - 4u * n;
    weigh(row, lane, base, shift, by_mass);
    if (by_mass && n == 0u) { enough = max(need * totals[0].x, SOME_MASS); }
    if (lane == 0u) {
      var j = 15u;
      while (j > 0u && (n_passes == 1u || totals[j / 4u][j % 4u] < enough)) { j--; }
      kept_mass = totals[j / 4u][j % 4u];
      found = base + (j << shift);
    }
    base = workgroupUniformLoad(&found);
  }
  return base;
}

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n_wg: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
  let r = wg.y * n_wg.x + wg.x;
  if (r >= u.R) { return; }
  let row = r * u.vocab;
  let temperature = bitcast<f32>(settings[2u * r].x);
  let top_p = bitcast<f32>(settings[2u * r].y);
  let least_weight = settings[2u * r].z; // weights order as words do
  let top_k = settings[2u * r].w;

  var most = 0u;
  var at = 0u;
  for (var v = lane; v < u.vocab; v += LANES) {
    let word = ordered(logits[row + v]);
    probs[row + v] = word;
    if (word > most) {
      most = word;
      at = v;
    }
  }
  atomicMax(&largest, most);
  workgroupBarrier();
  if (lane == 0u) { found = atomicLoad(&largest); }
  let top = workgroupUniformLoad(&found);
  if (most == top) { atomicMax(&first_inverted, ~at); }
  workgroupBarrier();

  if (top >= POSITIVE_INFINITY || top <= NEGATIVE_INFINITY) {
    for (var v = lane; v < u.vocab; v += LANES) { probs[row + v] = NAN_BITS; }
    return;
  }
  if (temperature < SMALLEST_TEMPERATURE) {
    let first = ~atomicLoad(&first_inverted);
    for (var v = lane; v < u.vocab; v += LANES) {
      probs[row + v] = select(0u, ONE_BITS, v == first);
    }
    return;
  }

  let top_logit = unordered(top);
  var least = 0u;
  for (var stage = 0u; stage < 2u; stage++) {
    let by_mass = stage == 1u;
    if (by_mass) {
      for (var v = lane; v < u.vocab; v += LANES) {
        let word = probs[row + v];
        // exp(-200) is 0; the likeliest token weighs exactly 1.
        let weight = exp(max((unordered(word) - top_logit) / temperature, -200.0));
        let bits = select(bitcast<u32>(weight), ONE_BITS, word == top);
        probs[row + v] = select(bits, 0u, word < least);
      }
    }
    let all = select(top_k == 0u || top_k >= u.vocab, top_p >= 1.0, by_mass);
    let n_passes = select(8u, stage, all); // only masses need a sum when all is kept
    least = search(row, lane, by_mass, select(f32(top_k), top_p, by_mass), n_passes);
  }
  if (least_weight > least) {
    least = least_weight;
    weigh(row, lane, least, 0u, true);
    if (lane == 0u) { kept_mass = totals[0].x; }
    workgroupBarrier();
  }
  let mass = kept_mass;
  for (var v = lane; v < u.vocab; v += LANES) {
    let word = probs[row + v];
    probs[row + v] = select(bitcast<u32>(bitcast<f32>(word) / mass), 0u, word < least);
  }
}
