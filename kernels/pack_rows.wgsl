// packed[i, :] = x[rows[i], :] as bf16, rounded to nearest, ties to even; NaN stays NaN, what is too large becomes infinite.
// One invocation per word, that is two elements; the even element is the lower half. The last half of an odd row is 0.
@group(0) @binding(0) var<storage, read> x: array<u32>;            // f32 [T, d_model], as bits: a NaN must not be changed on the way
@group(0) @binding(1) var<storage, read> rows: array<u32>;         // [n]
@group(0) @binding(2) var<storage, read_write> packed: array<u32>; // [n, words], words = ceil(d_model / 2)
struct Uniforms { n: u32, d_model: u32, words: u32 }
@group(0) @binding(3) var<uniform> u: Uniforms;

fn bf16(bits: u32) -> u32 {
  // Rounding would carry a NaN with a short payload into infinity.
  let is_nan = (bits & 0x7fffffffu) > 0x7f800000u;
  return select((bits + 0x7fffu + ((bits >> 16u) & 1u)) >> 16u, (bits >> 16u) | 0x40u, is_nan);
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n_wg: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
  let word = (wg.y * n_wg.x + wg.x) * 64u + lane;
  if (word >= u.n * u.words) { return; }
  let j = 2u * (word % u.words);
  let at = rows[word / u.words] * u.d_model + j;
  var pair = bf16(x[at]);
  if (j + 1u < u.d_model) { pair |= bf16(x[at + 1u]) << 16u; }
  packed[word] = pair;
}
