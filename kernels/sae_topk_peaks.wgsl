// peaks[t, p] = the largest of the activations p, p + P, p + 2 P, ... of row t, as words that order like their values
// A feature takes part only if marks[i] >= least; least 0 takes all.
// One thread per (t, p). Activations are bound as words because drivers may assume that there is no NaN.
@group(0) @binding(0) var<storage, read> acts: array<u32>;         // [T, window], f32 bits
@group(0) @binding(1) var<storage, read> marks: array<u32>;        // [window] where least > 0, else not read
@group(0) @binding(2) var<storage, read_write> peaks: array<u32>;  // [T, P]
struct Uniforms { T: u32, window: u32, P: u32, least: u32 }
@group(0) @binding(3) var<uniform> u: Uniforms;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n_wg: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
  let at = (wg.y * n_wg.x + wg.x) * 64u + lane;
  if (at >= u.T * u.P) { return; }
  let t = at / u.P;
  let row = t * u.window;
  var most = 0u;
  for (var i = at - t * u.P; i < u.window; i += u.P) {
    let key = topk_key(acts[row + i]);
    if (u.least == 0u || marks[i] >= u.least) { most = max(most, key); }
  }
  peaks[at] = most;
}
