// For each feature i of a window, over its entries e:
//   db_enc[i]  = sum_e dpre_e,  dpre = act > 0 ? dact : 0
//   l1_coef[i] = l1 * sum_e act_e / ‖W_dec_i‖      (gradient of the L1 term is l1_coef[i] * W_dec_i; 0 for a row of norm 0)
//   touched[i] tells what a feature's gradients hold: 0 nothing of this step, 1 what this pass writes, 2 what it adds to
//   tokens_since_fired[i] = any act > 0 ? 0 : tokens_since_fired[i] + tokens     where tokens > 0
// One invocation per feature.
@group(0) @binding(0) var<storage, read> runs: array<vec2<u32>>;                 // [window]
@group(0) @binding(1) var<storage, read> blocks: array<u32>;                     // [n_blocks]
@group(0) @binding(2) var<storage, read> columns: array<vec4<u32>>;              // [n_columns]: b, act, dact
@group(0) @binding(3) var<storage, read> norms: array<f32>;                      // [window]
@group(0) @binding(4) var<storage, read_write> db_enc: array<f32>;               // [window]
@group(0) @binding(5) var<storage, read_write> l1_coef: array<f32>;              // [window]
@group(0) @binding(6) var<storage, read_write> touched: array<u32>;              // [window]
@group(0) @binding(7) var<storage, read_write> tokens_since_fired: array<u32>;   // [window]
struct Uniforms { window: u32, block0: u32, tokens: u32, l1: f32 }
@group(0) @binding(8) var<uniform> u: Uniforms;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n_wg: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
  let i = (wg.y * n_wg.x + wg.x) * 64u + lane;
  if (i >= u.window) { return; }
  let run = runs[i];
  let begin = blocks[u.block0 + i / 256u] + run.x;
  var acts = 0.0;
  var dpre = 0.0;
  var fired = false;
  for (var e = begin; e < begin + run.y; e++) {
    let act = bitcast<f32>(columns[e].y);
    if (act > 0.0) {
      fired = true;
      acts += act;
      dpre += bitcast<f32>(columns[e].z);
    }
  }
  if (run.y > 0u) {
    let before = touched[i];
    db_enc[i] = select(0.0, db_enc[i], before != 0u) + dpre;
    touched[i] = min(before + 1u, 2u);
    let norm = norms[i];
    l1_coef[i] = select(0.0, u.l1 * acts / norm, norm > 0.0);
  } else if (touched[i] == 0u) {
    db_enc[i] = 0.0;
  }
  if (u.tokens > 0u) {
    let waited = min(tokens_since_fired[i], 0xffffffffu - u.tokens) + u.tokens;
    tokens_since_fired[i] = select(waited, 0u, fired);
  }
}
