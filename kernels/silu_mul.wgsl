// y[t, j] = silu(gate_up[t, j]) * gate_up[t, d_ffn + j],   silu(x) = x / (1 + exp(-x))
// One invocation per element of y.
@group(0) @binding(0) var<storage, read> gate_up: array<f32>; // [T, 2 d_ffn]: gate, then up
@group(0) @binding(1) var<storage, read_write> y: array<f32>; // [T, d_ffn]
struct Uniforms { T: u32, d_ffn: u32 }
@group(0) @binding(2) var<uniform> u: Uniforms;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n_wg: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
  let at = (wg.y * n_wg.x + wg.x) * 64u + lane;
  if (at >= u.T * u.d_ffn) { return; }
  let row = at / u.d_ffn;
  let gate = gate_up[at + row * u.d_ffn];
  y[at] = gate / (1.0 + exp(-gate)) * gate_up[at + (row + 1u) * u.d_ffn];
}
