// sums[j] = (adds ? sums[j] : 0) + scale * sum_b y[b, j]
// A workgroup owns 64 columns (lanes along them) and splits the batch into 4.
@group(0) @binding(0) var<storage, read> y: array<f32>;          // [B, columns]
@group(0) @binding(1) var<storage, read_write> sums: array<f32>; // [columns]
struct Uniforms { B: u32, columns: u32, adds: u32, scale: f32 }
@group(0) @binding(2) var<uniform> u: Uniforms;

var<workgroup> parts: array<f32, 256>;

@compute @workgroup_size(64, 4)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_id) id: vec3<u32>) {
  let j = wg.x * 64u + id.x;
  var sum = 0.0;
  if (j < u.columns) {
    for (var b = id.y; b < u.B; b += 4u) { sum += y[b * u.columns + j]; }
  }
  parts[id.y * 64u + id.x] = sum;
  workgroupBarrier();
  if (id.y == 0u && j < u.columns) {
    let total = parts[id.x] + parts[64u + id.x] + parts[128u + id.x] + parts[192u + id.x];
    sums[j] = select(0.0, sums[j], u.adds != 0u) + u.scale * total;
  }
}
