// For each feature i of a window, over the batch:
//   db_enc[i]  = sum_b dpre[b, i]
//   l1_coef[i] = l1 * sum_b acts[b, i] / ‖W_dec_i‖      (gradient of the L1 term is l1_coef[i] * W_dec_i; 0 for a row of norm 0)
//   touched[i] tells what a feature's gradients hold: 0 nothing of this step, 1 what this pass writes, 2 what it adds to
//   tokens_since_fired[i] = any acts[:, i] > 0 ? 0 : tokens_since_fired[i] + B
// A workgroup owns 64 features (lanes along them) and splits the batch into 4.
@group(0) @binding(0) var<storage, read> acts: array<f32>;                       // [B, window]
@group(0) @binding(1) var<storage, read> dpre: array<f32>;                       // [B, window]
@group(0) @binding(2) var<storage, read> norms: array<f32>;                      // [window]
@group(0) @binding(3) var<storage, read_write> db_enc: array<f32>;               // [window]
@group(0) @binding(4) var<storage, read_write> l1_coef: array<f32>;              // [window]
@group(0) @binding(5) var<storage, read_write> touched: array<u32>;              // [window]
@group(0) @binding(6) var<storage, read_write> tokens_since_fired: array<u32>;   // [window]
struct Uniforms { B: u32, window: u32, l1: f32 }
@group(0) @binding(7) var<uniform> u: Uniforms;

var<workgroup> sums: array<vec3<f32>, 256>; // acts, dpre, count

@compute @workgroup_size(64, 4)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_id) id: vec3<u32>) {
  let i = wg.x * 64u + id.x;
  var sum = vec3<f32>();
  if (i < u.window) {
    for (var b = id.y; b < u.B; b += 4u) {
      let act = acts[b * u.window + i];
      sum += vec3<f32>(act, dpre[b * u.window + i], f32(act > 0.0));
    }
  }
  sums[id.y * 64u + id.x] = sum;
  workgroupBarrier();
  if (id.y == 0u && i < u.window) {
    let total = sum + sums[64u + id.x] + sums[128u + id.x] + sums[192u + id.x];
    let before = touched[i];
    let norm = norms[i];
    db_enc[i] = select(0.0, db_enc[i], before != 0u) + total.y;
    l1_coef[i] = select(0.0, u.l1 * total.x / norm, norm > 0.0);
    touched[i] = min(before + 1u, 2u);
    let waited = min(tokens_since_fired[i], 0xffffffffu - u.B) + u.B;
    tokens_since_fired[i] = select(waited, 0u, total.z > 0.0);
  }
}
