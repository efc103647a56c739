// acts[t, i] = acts[t, i] if it is at or above its row's threshold and above 0, else 0. What is not finite stays.
// One workgroup of 128 per row t. Activations are bound as words because drivers may assume that there is no NaN.
@group(0) @binding(0) var<storage, read> thresholds: array<vec2<u32>>;  // [slots]: f32 bits, and a number not read here
@group(0) @binding(1) var<storage, read_write> acts: array<u32>;        // [T, window], f32 bits
struct Uniforms { T: u32, window: u32, slots: u32 }
@group(0) @binding(2) var<uniform> u: Uniforms;

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n_wg: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
  let t = wg.y * n_wg.x + wg.x;
  if (t >= u.T) { return; }
  let threshold = thresholds[select(t, 0u, u.slots == 1u)].x;
  let row = t * u.window;
  for (var i = lane; i < u.window; i += 128u) {
    let bits = acts[row + i];
    acts[row + i] = select(0u, bits, topk_keeps(bits, threshold));
  }
}
