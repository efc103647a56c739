// For each feature i of a window, over a batch of tokens:
//   n_fired[i] += number of acts[:, i] > 0,   max_act[i] = max(max_act[i], acts[:, i])
// A workgroup owns 64 features (lanes along them) and splits the tokens into 4.
@group(0) @binding(0) var<storage, read> acts: array<f32>;          // [T, window]
@group(0) @binding(1) var<storage, read_write> n_fired: array<u32>; // [window]
@group(0) @binding(2) var<storage, read_write> max_act: array<f32>; // [window]
struct Uniforms { T: u32, window: u32 }
@group(0) @binding(3) var<uniform> u: Uniforms;

var<workgroup> counts: array<u32, 256>;
var<workgroup> maxima: array<f32, 256>;

@compute @workgroup_size(64, 4)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_id) id: vec3<u32>) {
  let i = wg.x * 64u + id.x;
  var count = 0u;
  var most = 0.0;
  if (i < u.window) {
    for (var t = id.y; t < u.T; t += 4u) {
      let act = acts[t * u.window + i];
      count += u32(act > 0.0);
      most = max(most, act);
    }
  }
  counts[id.y * 64u + id.x] = count;
  maxima[id.y * 64u + id.x] = most;
  workgroupBarrier();
  if (id.y == 0u && i < u.window) {
    n_fired[i] += count + counts[64u + id.x] + counts[128u + id.x] + counts[192u + id.x];
    let rest = max(maxima[64u + id.x], max(maxima[128u + id.x], maxima[192u + id.x]));
    max_act[i] = max(max_act[i], max(most, rest));
  }
}
