// dead[0] += number of features i with waited[i] >= dead_after
// One workgroup of 64 per 64 features; whole numbers, so that the order does not matter.
@group(0) @binding(0) var<storage, read> waited: array<u32>;              // [window]
@group(0) @binding(1) var<storage, read_write> dead: array<atomic<u32>>;  // [1]
struct Uniforms { window: u32, dead_after: u32 }
@group(0) @binding(2) var<uniform> u: Uniforms;

var<workgroup> count: atomic<u32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n_wg: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
  let i = (wg.y * n_wg.x + wg.x) * 64u + lane;
  if (i < u.window && waited[i] >= u.dead_after) { atomicAdd(&count, 1u); }
  workgroupBarrier();
  if (lane == 0u) { atomicAdd(&dead[0], atomicLoad(&count)); }
}
