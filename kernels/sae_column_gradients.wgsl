// For each feature i of a window that has entries e, of rows b:
//   dW_dec[i, :] = mean * sum_e act_e * err[b_e, :] + l1_coef[i] * W_dec[i, :]
//   dW_enc[i, :] = scale * sum_e dpre_e * x[b_e, :],  dpre = act > 0 ? dact : 0
// added to what is there where touched[i] is 2. Rows of features without entries are left as they are.
// Columns in groups of 4; d_model is a multiple of 4.
// A workgroup of LANES owns 4·LANES groups of columns of one feature, each invocation 4 of them.
override LANES: u32 = 64u;
@group(0) @binding(0) var<storage, read> columns: array<vec4<u32>>;       // [n_columns]: b, act, dact
@group(0) @binding(1) var<storage, read> runs: array<vec2<u32>>;          // [window]
@group(0) @binding(2) var<storage, read> blocks: array<u32>;              // [n_blocks]
@group(0) @binding(3) var<storage, read> touched: array<u32>;             // [window]
@group(0) @binding(4) var<storage, read> l1_coef: array<f32>;             // [window]
@group(0) @binding(5) var<storage, read> err: array<vec4<f32>>;           // [B, d_model]
@group(0) @binding(6) var<storage, read> x: array<vec2<u32>>;             // [B, d_model], f32 or bf16: needs x_f32.wgsl or x_bf16.wgsl
@group(0) @binding(7) var<storage, read> W_dec: array<vec4<f32>>;         // [window, d_model]
@group(0) @binding(8) var<storage, read_write> dW_dec: array<vec4<f32>>;  // [window, d_model]
@group(0) @binding(9) var<storage, read_write> dW_enc: array<vec4<f32>>;  // [window, d_model]
struct Uniforms { window: u32, block0: u32, d_model: u32, mean: f32, scale: f32 }
@group(0) @binding(10) var<uniform> u: Uniforms;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n_wg: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
  let n = u.d_model / 4u;
  let parts = (n + 4u * LANES - 1u) / (4u * LANES);
  let item = wg.y * n_wg.x + wg.x;
  let i = item / parts;
  if (i >= u.window) { return; }
  let run = runs[i];
  if (run.y == 0u) { return; }
  let c0 = (item % parts) * 4u * LANES + lane;
  let c1 = c0 + LANES;
  let c2 = c1 + LANES;
  let c3 = c2 + LANES;
  // Columns past the end repeat the last one; they are not stored.
  let last = n - 1u;
  let k0 = min(c0, last);
  let k1 = min(c1, last);
  let k2 = min(c2, last);
  let k3 = min(c3, last);
  var dec0 = vec4<f32>();
  var dec1 = vec4<f32>();
  var dec2 = vec4<f32>();
  var dec3 = vec4<f32>();
  var enc0 = vec4<f32>();
  var enc1 = vec4<f32>();
  var enc2 = vec4<f32>();
  var enc3 = vec4<f32>();
  let begin = blocks[u.block0 + i / 256u] + run.x;
  for (var e = begin; e < begin + run.y; e++) {
    let entry = columns[e];
    let row = entry.x * n;
    let act = bitcast<f32>(entry.y);
    let dpre = select(0.0, bitcast<f32>(entry.z), act > 0.0);
    dec0 = fma(vec4<f32>(act), err[row + k0], dec0);
    dec1 = fma(vec4<f32>(act), err[row + k1], dec1);
    dec2 = fma(vec4<f32>(act), err[row + k2], dec2);
    dec3 = fma(vec4<f32>(act), err[row + k3], dec3);
    enc0 = fma(vec4<f32>(dpre), x_at(row + k0), enc0);
    enc1 = fma(vec4<f32>(dpre), x_at(row + k1), enc1);
    enc2 = fma(vec4<f32>(dpre), x_at(row + k2), enc2);
    enc3 = fma(vec4<f32>(dpre), x_at(row + k3), enc3);
  }
  let w = i * n;
  let coef = l1_coef[i];
  let adds = touched[i] == 2u;
  if (c0 < n) {
    dW_dec[w + c0] = select(vec4<f32>(), dW_dec[w + c0], adds) + u.mean * dec0 + coef * W_dec[w + c0];
    dW_enc[w + c0] = select(vec4<f32>(), dW_enc[w + c0], adds) + u.scale * enc0;
  }
  if (c1 < n) {
    dW_dec[w + c1] = select(vec4<f32>(), dW_dec[w + c1], adds) + u.mean * dec1 + coef * W_dec[w + c1];
    dW_enc[w + c1] = select(vec4<f32>(), dW_enc[w + c1], adds) + u.scale * enc1;
  }
  if (c2 < n) {
    dW_dec[w + c2] = select(vec4<f32>(), dW_dec[w + c2], adds) + u.mean * dec2 + coef * W_dec[w + c2];
    dW_enc[w + c2] = select(vec4<f32>(), dW_enc[w + c2], adds) + u.scale * enc2;
  }
  if (c3 < n) {
    dW_dec[w + c3] = select(vec4<f32>(), dW_dec[w + c3], adds) + u.mean * dec3 + coef * W_dec[w + c3];
    dW_enc[w + c3] = select(vec4<f32>(), dW_enc[w + c3], adds) + u.scale * enc3;
  }
}
