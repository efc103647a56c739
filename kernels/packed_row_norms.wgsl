// norms[i] = sqrt(sum_j packed[i, j]²), or -1 if a value of the row is a NaN or an infinity
// One workgroup of 64 per row; needs reduce.wgsl.
@group(0) @binding(0) var<storage, read> packed: array<u32>;      // bf16 pairs [n, words]; the last half of an odd row is 0
@group(0) @binding(1) var<storage, read_write> norms: array<f32>; // [n]
struct Uniforms { n: u32, words: u32 }
@group(0) @binding(2) var<uniform> u: Uniforms;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n_wg: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
  let i = wg.y * n_wg.x + wg.x;
  if (i >= u.n) { return; }
  var squares = 0.0;
  var bad = 0.0;
  for (var j = lane; j < u.words; j += 64u) {
    let word = packed[i * u.words + j];
    // By bits: compilers may take a comparison of a NaN with itself for true.
    if ((word & 0x7f80u) == 0x7f80u || (word & 0x7f800000u) == 0x7f800000u) {
      bad = 1.0;
    } else {
      let low = bitcast<f32>(word << 16u);
      let high = bitcast<f32>(word & 0xffff0000u);
      squares += low * low + high * high;
    }
  }
  let total = sum_lanes(squares, lane);
  let worst = max_lanes(bad, lane);
  if (lane == 0u) { norms[i] = select(sqrt(total), -1.0, worst > 0.0); }
}
