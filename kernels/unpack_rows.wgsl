// x[i, :] = scale * packed[i, :]     (bf16; the even element is the lower half)
// One invocation per word, that is two elements.
@group(0) @binding(0) var<storage, read> packed: array<u32>;  // bf16 pairs [n, words], words = ceil(d_model / 2)
@group(0) @binding(1) var<storage, read_write> x: array<f32>; // [n, d_model]
struct Uniforms { n: u32, d_model: u32, words: u32, scale: f32 }
@group(0) @binding(2) var<uniform> u: Uniforms;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n_wg: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
  let at = (wg.y * n_wg.x + wg.x) * 64u + lane;
  if (at >= u.n * u.words) { return; }
  let j = 2u * (at % u.words);
  let to = at / u.words * u.d_model + j;
  x[to] = u.scale * bitcast<f32>(packed[at] << 16u);
  if (j + 1u < u.d_model) { x[to + 1u] = u.scale * bitcast<f32>(packed[at] & 0xffff0000u); }
}
