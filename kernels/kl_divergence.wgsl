// kl[t] = sum_v p[v] * (log p[v] - log q[v]) with p = softmax(logits_p[t]), q = softmax(logits_q[t])
// One workgroup of 64 per token; needs reduce.wgsl.
@group(0) @binding(0) var<storage, read> logits_p: array<f32>; // [T, vocab]
@group(0) @binding(1) var<storage, read> logits_q: array<f32>; // [T, vocab]
@group(0) @binding(2) var<storage, read_write> kl: array<f32>; // [T], nats
struct Uniforms { T: u32, vocab: u32 }
@group(0) @binding(3) var<uniform> u: Uniforms;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n_wg: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
  let t = wg.y * n_wg.x + wg.x;
  if (t >= u.T) { return; }
  let row = t * u.vocab;
  var most = vec2<f32>(-3.0e38);
  for (var v = lane; v < u.vocab; v += 64u) {
    most = max(most, vec2<f32>(logits_p[row + v], logits_q[row + v]));
  }
  most = vec2<f32>(max_lanes(most.x, lane), max_lanes(most.y, lane));
  var sum = vec2<f32>();
  for (var v = lane; v < u.vocab; v += 64u) {
    sum += exp(vec2<f32>(logits_p[row + v], logits_q[row + v]) - most);
  }
  let total = vec2<f32>(sum_lanes(sum.x, lane), sum_lanes(sum.y, lane));
  let log_total = log(total);
  var divergence = 0.0;
  for (var v = lane; v < u.vocab; v += 64u) {
    let centered = vec2<f32>(logits_p[row + v], logits_q[row + v]) - most;
    let log_share = centered - log_total;
    divergence += exp(centered.x) * (log_share.x - log_share.y);
  }
  let all = sum_lanes(divergence, lane);
  if (lane == 0u) { kl[t] = all / total.x; }
}
