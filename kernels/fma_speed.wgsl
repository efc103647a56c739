// y[i] = what `rounds` rounds of 64 multiplications and additions each make of i
// For measuring how fast numbers in registers are computed with: 16 sums that do not depend on each other.
@group(0) @binding(0) var<storage, read_write> y: array<f32>; // [n], n a multiple of 64
struct Uniforms { rounds: u32 }
@group(0) @binding(1) var<uniform> u: Uniforms;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let x = vec4<f32>(f32(id.x % 7u)) * vec4<f32>(0.1, 0.2, 0.3, 0.4);
  let scale = vec4<f32>(0.99);
  var a = x;
  var b = x + 1.0;
  var c = x + 2.0;
  var d = x + 3.0;
  for (var round = 0u; round < u.rounds; round++) {
    a = fma(a, scale, x);
    b = fma(b, scale, x);
    c = fma(c, scale, x);
    d = fma(d, scale, x);
    a = fma(a, scale, x);
    b = fma(b, scale, x);
    c = fma(c, scale, x);
    d = fma(d, scale, x);
    a = fma(a, scale, x);
    b = fma(b, scale, x);
    c = fma(c, scale, x);
    d = fma(d, scale, x);
    a = fma(a, scale, x);
    b = fma(b, scale, x);
    c = fma(c, scale, x);
    d = fma(d, scale, x);
  }
  y[id.x] = dot(a + b + c + d, vec4<f32>(1.0));
}
