// levels[target_row + i, k] = round(w / scale), w = source[source_row + i, k]. Of its block's weight of largest magnitude,
// divided by -6.5, -7, ... -10 and rounded to bf16, scale is the quotient that leaves the least squared error, the first of
// equals. One invocation per two blocks, whose scales share a word. A block with NaN or infinity gets a NaN for its scale
// and is reported; one of weights below 2^-80 is all 0. source is f32, bf16 or f16 (see unpack_*.wgsl).
@group(0) @binding(0) var<storage, read> source: array<u32>;                // [source_rows, K]
@group(0) @binding(1) var<storage, read_write> levels: array<u32>;          // q4 [rows, K], see QuantizedDtype in gpu/dtype.ts
@group(0) @binding(2) var<storage, read_write> not_finite: atomic<u32>;     // [1], the least `part` that has such a weight
struct Uniforms { n: u32, K: u32, source_row: u32, target_row: u32, part: u32 }
@group(0) @binding(3) var<uniform> u: Uniforms;

var<private> weights: array<f32, 32>;

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
  let to_row = (u.target_row + i) * (4u * n_blocks + (n_blocks + 7u) / 8u * 4u);
  var scales = 0u;
  for (var half = 0u; half < 2u; half++) {
    let block = 2u * pair + half;
    if (block >= n_blocks) { break; }
    let n = min(32u, u.K - 32u * block);
    // Magnitudes compare as their bits do, NaN and infinity above all others.
    var largest = 0u;
    var extreme = 0.0;
    for (var k = 0u; k < 32u; k++) {
      var w = 0.0;
      if (k < n) {
        let element = from_row + 32u * block + k;
        w = unpack(source[element / PER_WORD], element % PER_WORD);
      }
      weights[k] = w;
      let magnitude = bitcast<u32>(w) & 0x7fffffffu;
      if (magnitude > largest) {
        largest = magnitude;
        extreme = w;
      }
    }
    var scale = 0u;
    if (largest >= 0x7f800000u) {
      scale = 0x7fc0u;
      atomicMin(&not_finite, u.part);
    } else if (largest >= 0x17800000u) {
      scale = best_scale(extreme);
    }
    let factor = select(0.0, 1.0 / bitcast<f32>(scale << 16u), scale != 0u && scale != 0x7fc0u);
    for (var word = 0u; word < 4u; word++) {
      var packed = 0u;
      for (var part = 0u; part < 8u; part++) {
        let level = select(0, i32(level_of(weights[8u * word + part], factor)), factor != 0.0);
        packed |= (bitcast<u32>(level) & 15u) << (4u * part);
      }
      levels[to_row + 4u * block + word] = packed;
    }
    scales |= scale << (16u * half);
  }
  levels[to_row + 4u * n_blocks + pair] = scales;
}

fn level_of(w: f32, factor: f32) -> f32 { return clamp(round(w * factor), -8.0, 7.0); }

fn best_scale(extreme: f32) -> u32 {
  var best = 0u;
  var least = 3.0e38;
  for (var step = 0u; step < 8u; step++) {
    let candidate = bf16(extreme / (-6.5 - 0.5 * f32(step)));
    let scale = bitcast<f32>(candidate << 16u);
    let factor = 1.0 / scale;
    var sum = 0.0;
    for (var k = 0u; k < 32u; k++) {
      // In units of the largest weight, so that no square overflows or vanishes.
      let error = (weights[k] - scale * level_of(weights[k], factor)) / extreme;
      sum = fma(error, error, sum);
    }
    if (sum < least) {
      least = sum;
      best = candidate;
    }
  }
  return best;
}

// The upper half of a finite number, rounded to nearest, ties to even.
fn bf16(x: f32) -> u32 {
  let bits = bitcast<u32>(x);
  return (bits + 0x7fffu + ((bits >> 16u) & 1u)) >> 16u;
}
