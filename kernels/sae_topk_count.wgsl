// counts[slot, b] += how many activations have b as their next digit, of those that begin with the digits found
// Activations are not negative, so their bits have their order; -0 and what is negative count as 0 and are never counted.
// What is not finite counts as infinity, the largest. A feature takes part only if marks[i] >= least; least 0 takes all.
// Digits are 8, 8, 8 and 7 bits of the 31, at shifts 23, 15, 7 and 0. slot is the row, or 0 where all rows share one.
// Those below floors[slot] are known to be too small, and with them all of a group whose peak is.
// One thread per (t, p), for activations p, p + P, p + 2 P, ... of row t; few of them count, so counts are added to at once.
// Activations are bound as words because drivers may assume that there is no NaN.
@group(0) @binding(0) var<storage, read> acts: array<u32>;                  // [T, window], f32 bits
@group(0) @binding(1) var<storage, read> marks: array<u32>;                 // [window] where least > 0, else not read
@group(0) @binding(2) var<storage, read> peaks: array<u32>;                 // [T, P]
@group(0) @binding(3) var<storage, read> floors: array<vec2<u32>>;          // [slots]: a word, and a number not read here
@group(0) @binding(4) var<storage, read> found: array<vec2<u32>>;           // [slots]: digits so far, how many are left
@group(0) @binding(5) var<storage, read_write> counts: array<atomic<u32>>;  // [slots, 256]
struct Uniforms { T: u32, window: u32, P: u32, slots: u32, shift: u32, least: u32, has_floors: u32 }
@group(0) @binding(6) var<uniform> u: Uniforms;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n_wg: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
  let at = (wg.y * n_wg.x + wg.x) * 64u + lane;
  if (at >= u.T * u.P) { return; }
  let t = at / u.P;
  let slot = select(t, 0u, u.slots == 1u);
  let above = select(u.shift + 8u, 7u, u.shift == 0u);
  let prefix = select(found[slot].x, 0u, u.shift == 23u);
  let least = max(max(prefix, select(0u, floors[slot].x, u.has_floors == 1u)), 1u);
  if (peaks[at] < least) { return; }
  let row = t * u.window;
  for (var i = at - t * u.P; i < u.window; i += u.P) {
    let key = topk_key(acts[row + i]);
    if (key >= least && (key >> above) == (prefix >> above)) {
      if (u.least == 0u || marks[i] >= u.least) {
        atomicAdd(&counts[slot * 256u + ((key >> u.shift) & ((1u << (above - u.shift)) - 1u))], 1u);
      }
    }
  }
}
