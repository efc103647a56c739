// Appends a window's activations that are not 0 to the list of each row, in the order of the features:
//   lists[t, :] = n, cap features, cap values as f32 bits; n counts all of the row, of which the first cap are kept
// The window from feature 0 begins the lists, every other one goes on where the one before it ended.
// One workgroup of 64 per row t: each lane owns a run of neighbors, counts it, and then knows where to write.
// Activations are bound as words because drivers may assume that there is no NaN.
@group(0) @binding(0) var<storage, read> acts: array<u32>;        // [T, window], f32 bits
@group(0) @binding(1) var<storage, read_write> lists: array<u32>; // [T, width], width = 1 + 2 cap
struct Uniforms { T: u32, window: u32, width: u32, start: u32 }
@group(0) @binding(2) var<uniform> u: Uniforms;

const LANES = 64u;

var<workgroup> counts: array<u32, 64>;

fn fires(bits: u32) -> bool { return (bits & 0x7fffffffu) != 0u; }

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n_wg: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
  let t = wg.y * n_wg.x + wg.x;
  if (t >= u.T) { return; }
  let cap = (u.width - 1u) / 2u;
  let list = t * u.width;
  let row = t * u.window;
  let run = (u.window + LANES - 1u) / LANES;
  let begin = min(lane * run, u.window);
  let end = min(begin + run, u.window);
  let before = select(lists[list], 0u, u.start == 0u);

  var count = 0u;
  for (var i = begin; i < end; i++) { count += u32(fires(acts[row + i])); }
  counts[lane] = count;
  workgroupBarrier();
  storageBarrier(); // all lanes have read the count before the last one replaces it
  var at = before;
  for (var other = 0u; other < lane; other++) { at += counts[other]; }
  if (lane == LANES - 1u) { lists[list] = at + count; }
  if (count == 0u) { return; }
  for (var i = begin; i < end && at < cap; i++) {
    let bits = acts[row + i];
    if (fires(bits)) {
      lists[list + 1u + at] = u.start + i;
      lists[list + 1u + cap + at] = bits;
      at++;
    }
  }
}
