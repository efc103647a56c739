// sums[g, lane] = sum of the words that lane `lane` of workgroup g reads of 8 rows of x
// For measuring how fast memory is read: 16 bytes a load, in the order in which matrix-vector products read weights.
override LANES: u32 = 8u;
@group(0) @binding(0) var<storage, read> x: array<vec4<u32>>;      // bf16 [rows, columns], rows a multiple of 8
@group(0) @binding(1) var<storage, read_write> sums: array<u32>;   // [rows / 8, LANES]
struct Uniforms { columns: u32 }
@group(0) @binding(2) var<uniform> u: Uniforms;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let width = u.columns / 8u;
  let first = 8u * wg.x * width;
  var a = vec4<u32>();
  var b = vec4<u32>();
  for (var k = lane; k < width; k += LANES) {
    let at = first + k;
    a += x[at];
    b += x[at + width];
    a += x[at + 2u * width];
    b += x[at + 3u * width];
    a += x[at + 4u * width];
    b += x[at + 5u * width];
    a += x[at + 6u * width];
    b += x[at + 7u * width];
  }
  let sum = a + b;
  sums[wg.x * LANES + lane] = sum.x + sum.y + sum.z + sum.w;
}
