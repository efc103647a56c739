// levels[target_row + i, k] = round(w / scale), scale = max |w| / 127 of its block as bf16, w = source[source_row + i, k]
// One invocation per two blocks, whose scales share a word. A block with NaN or infinity gets a NaN for its scale and is
// reported; one of weights below 2^-80 is all 0. source is f32, bf16 or f16 (see unpack_*.wgsl).
@group(0) @binding(0) var<storage, read> source: array<u32>;                // [source_rows, K]
@group(0) @binding(1) var<storage, read_write> levels: array<u32>;          // q8 [rows, K], see QuantizedDtype in gpu/dtype.ts
@group(0) @binding(2) var<storage, read_write> not_finite: atomic<u32>;     // [1], the least `part` that has such a weight
struct Uniforms { n: u32, K: u32, source_row: u32, target_row: u32, part: u32 }
@group(0) @binding(3) var<uniform> u: Uniforms;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n_wg: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
  let at = (wg.y * n_wg.x + wg.x) * 64u + lane;
  let n_blocks = (u.K + 31u) / 32u;
  let n_pairs = (n_blocks + 1u) / 2u;
  if (at >= u.n * n_pairs) { return; }
  let i = at / n_pairs;
  let pair = at % n_pairs;
  let from_row = (u.source_row + i) * u.K;
  let to_row = (u.target_row + i) * (8u * n_blocks + (n_blocks + 7u) / 8u * 4u);
  var scales = 0u;
  for (var half = 0u; half < 2u; half++) {
    let block = 2u * pair + half;
    if (block >= n_blocks) { break; }
    let end = min(32u * block + 32u, u.K);
    // Magnitudes compare as their bits do, NaN and infinity above all others.
    var largest = 0u;
    for (var k = 32u * block; k < end; k++) {
      largest = max(largest, bitcast<u32>(weight(from_row + k)) & 0x7fffffffu);
    }
    var scale = 0u;
    var factor = 0.0;
    if (largest >= 0x7f800000u) {
      scale = 0x7fc0u;
      atomicMin(&not_finite, u.part);
    } else if (largest >= 0x17800000u) {
      scale = bf16(bitcast<f32>(largest) / 127.0);
      factor = 1.0 / bitcast<f32>(scale << 16u);
    }
    for (var word = 0u; word < 8u; word++) {
      var packed = 0u;
      for (var part = 0u; part < 4u; part++) {
        let k = 32u * block + 4u * word + part;
        if (k < end && factor > 0.0) {
          let level = i32(clamp(round(weight(from_row + k) * factor), -127.0, 127.0));
          packed |= (bitcast<u32>(level) & 255u) << (8u * part);
        }
      }
      levels[to_row + 8u * block + word] = packed;
    }
    scales |= scale << (16u * half);
  }
  levels[to_row + 8u * n_blocks + pair] = scales;
}

fn weight(at: u32) -> f32 { return unpack(source[at / PER_WORD], at % PER_WORD); }

// The upper half of a finite number, rounded to nearest, ties to even.
fn bf16(x: f32) -> u32 {
  let bits = bitcast<u32>(x);
  return (bits + 0x7fffu + ((bits >> 16u) & 1u)) >> 16u;
}
