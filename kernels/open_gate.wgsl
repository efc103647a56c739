// allowed[i] = wanted[i] if its branch is branch[0], else no workgroups. Where wanted names items of a workgroup instead
// of workgroups (its third word is 0), as many are allowed as the last of counts takes.
// One invocation per gated launch.
@group(0) @binding(0) var<storage, read> branch: array<u32>;              // [1]
@group(0) @binding(1) var<storage, read> counts: array<u32>;              // [n_counts]
@group(0) @binding(2) var<storage, read> wanted: array<vec4<u32>>;        // [n]: workgroups, branch; or items, 0, 0, branch
@group(0) @binding(3) var<storage, read_write> allowed: array<vec4<u32>>; // [n]
struct Uniforms { n: u32, n_counts: u32 }
@group(0) @binding(4) var<uniform> u: Uniforms;

const MAX_WORKGROUPS = 65535u;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= u.n) { return; }
  var launch = wanted[id.x];
  if (launch.w != branch[0]) {
    launch = vec4<u32>();
  } else if (launch.z == 0u && launch.x > 0u) {
    let n = (counts[u.n_counts - 1u] + launch.x - 1u) / launch.x;
    let columns = min(n, MAX_WORKGROUPS);
    launch = vec4<u32>(columns, (n + MAX_WORKGROUPS - 1u) / MAX_WORKGROUPS, 1u, launch.w);
  }
  allowed[id.x] = launch;
}
