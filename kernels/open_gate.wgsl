// allowed[i] = wanted[i] if its branch is branch[0], else no workgroups
// One invocation per gated launch.
@group(0) @binding(0) var<storage, read> branch: array<u32>;              // [1]
@group(0) @binding(1) var<storage, read> wanted: array<vec4<u32>>;        // [n]: workgroups, branch
@group(0) @binding(2) var<storage, read_write> allowed: array<vec4<u32>>; // [n]
struct Uniforms { n: u32 }
@group(0) @binding(3) var<uniform> u: Uniforms;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= u.n) { return; }
  let launch = wanted[id.x];
  allowed[id.x] = select(vec4<u32>(), launch, launch.w == branch[0]);
}
