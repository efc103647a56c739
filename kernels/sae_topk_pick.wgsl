// found[slot] = the digits so far with one more: that of the k-th largest, or of the least where fewer than k were counted;
// and how many of those that begin with these digits are among the k largest. 0 and 0 where nothing was counted, and with
// all_or_none where fewer than k were. Leaves the counts at 0 for the next digit.
// One workgroup of 16 per slot; each lane owns 16 bins, 4 at a time.
@group(0) @binding(0) var<storage, read_write> counts: array<vec4<u32>>; // [slots, 256]
@group(0) @binding(1) var<storage, read_write> found: array<vec2<u32>>;  // [slots]
struct Uniforms { slots: u32, shift: u32, k: u32, all_or_none: u32 }
@group(0) @binding(2) var<uniform> u: Uniforms;

const LANES = 16u;
const OWN = 4u;

var<workgroup> lane_counts: array<u32, LANES>;

@compute @workgroup_size(16)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n_wg: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
  let slot = wg.y * n_wg.x + wg.x;
  if (slot >= u.slots) { return; }
  let before = select(found[slot], vec2<u32>(0u, u.k), u.shift == 23u);
  let begin = (slot * LANES + lane) * OWN;
  var own: array<vec4<u32>, OWN>;
  var sums = vec4<u32>();
  for (var b = 0u; b < OWN; b++) {
    own[b] = counts[begin + b];
    counts[begin + b] = vec4<u32>();
    sums += own[b];
  }
  let sum = sums.x + sums.y + sums.z + sums.w;
  lane_counts[lane] = sum;
  workgroupBarrier();
  storageBarrier(); // all lanes have read what one of them replaces
  var total = 0u;
  var above = 0u;
  for (var other = 0u; other < LANES; other++) {
    let n = lane_counts[other];
    total += n;
    above += select(0u, n, other > lane);
  }
  let is_short = total == 0u || (u.all_or_none == 1u && total < before.y);
  let wanted = select(min(before.y, total), 0u, is_short);
  if (is_short && lane == 0u) { found[slot] = vec2<u32>(0u, 0u); }
  if (above < wanted && above + sum >= wanted) {
    var b = 4u * OWN - 1u;
    while (above + own[b / 4u][b % 4u] < wanted) {
      above += own[b / 4u][b % 4u];
      b--;
    }
    found[slot] = vec2<u32>(before.x | ((4u * OWN * lane + b) << u.shift), wanted - above);
  }
}
