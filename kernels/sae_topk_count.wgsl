// counts[slot, b] += how many activations of row t have b as their next digit, of those that begin with the digits found
// Activations are not negative, so their bits have their order; -0 and what is negative count as 0 and are never counted.
// What is not finite counts as infinity, the largest. A feature takes part only if marks[i] >= least; least 0 takes all.
// Digits are 8, 8, 8 and 7 bits of the 31, at shifts 23, 15, 7 and 0. slot is t, or 0 where all rows share one.
// One workgroup of 128 per row t. Activations are bound as words because drivers may assume that there is no NaN.
@group(0) @binding(0) var<storage, read> acts: array<u32>;                  // [T, window], f32 bits
@group(0) @binding(1) var<storage, read> marks: array<u32>;                 // [window] where least > 0, else not read
@group(0) @binding(2) var<storage, read> found: array<vec2<u32>>;           // [slots]: digits so far, how many are left
@group(0) @binding(3) var<storage, read_write> counts: array<atomic<u32>>;  // [slots, 256]
struct Uniforms { T: u32, window: u32, slots: u32, shift: u32, least: u32 }
@group(0) @binding(4) var<uniform> u: Uniforms;

const LANES = 128u;
const BINS = 256u;

var<workgroup> bins: array<atomic<u32>, BINS>;

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n_wg: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
  let t = wg.y * n_wg.x + wg.x;
  if (t >= u.T) { return; }
  let slot = select(t, 0u, u.slots == 1u);
  let row = t * u.window;
  let is_first = u.shift == 23u;
  let above = select(u.shift + 8u, 7u, u.shift == 0u);
  let prefix = select(found[slot].x, 0u, is_first) >> above;
  for (var b = lane; b < BINS; b += LANES) { atomicStore(&bins[b], 0u); }
  workgroupBarrier();
  for (var i = lane; i < u.window; i += LANES) {
    let key = topk_key(acts[row + i]);
    if (key != 0u && (key >> above) == prefix) {
      if (u.least == 0u || marks[i] >= u.least) {
        atomicAdd(&bins[(key >> u.shift) & ((1u << (above - u.shift)) - 1u)], 1u);
      }
    }
  }
  workgroupBarrier();
  for (var b = lane; b < BINS; b += LANES) {
    let n = atomicLoad(&bins[b]);
    if (n > 0u) { atomicAdd(&counts[slot * BINS + b], n); }
  }
}
