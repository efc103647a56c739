// y[c, r] = x[r, c]
// One invocation per 4 by 4 elements; rows and columns are multiples of 4.
@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;       // [rows, columns]
@group(0) @binding(1) var<storage, read_write> y: array<vec4<f32>>; // [columns, rows]
struct Uniforms { rows: u32, columns: u32 }
@group(0) @binding(2) var<uniform> u: Uniforms;

// Wide workgroups: on software drivers twice as fast as square ones where rows are a power of two apart.
@compute @workgroup_size(16, 4)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let width = u.columns / 4u;
  let height = u.rows / 4u;
  if (id.x >= width || id.y >= height) { return; }
  let at = 4u * id.y * width + id.x;
  let a = x[at];
  let b = x[at + width];
  let c = x[at + 2u * width];
  let d = x[at + 3u * width];
  let to = 4u * id.x * height + id.y;
  y[to] = vec4<f32>(a.x, b.x, c.x, d.x);
  y[to + height] = vec4<f32>(a.y, b.y, c.y, d.y);
  y[to + 2u * height] = vec4<f32>(a.z, b.z, c.z, d.z);
  y[to + 3u * height] = vec4<f32>(a.w, b.w, c.w, d.w);
}
