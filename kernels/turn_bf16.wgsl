// y[c, r] = x[r, c]     (packed bf16; the even element is the lower half)
// One invocation per 8 by 8 elements; rows and columns are multiples of 8.
@group(0) @binding(0) var<storage, read> x: array<vec4<u32>>;       // bf16 [rows, columns]
@group(0) @binding(1) var<storage, read_write> y: array<vec4<u32>>; // bf16 [columns, rows]
struct Uniforms { rows: u32, columns: u32 }
@group(0) @binding(2) var<uniform> u: Uniforms;

// Lower or upper halves of two words as one.
fn lower(a: u32, b: u32) -> u32 { return (a & 0xffffu) | (b << 16u); }
fn upper(a: u32, b: u32) -> u32 { return (a >> 16u) | (b & 0xffff0000u); }

// Wide workgroups: on software drivers twice as fast as square ones where rows are a power of two apart.
@compute @workgroup_size(16, 4)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let width = u.columns / 8u;
  let height = u.rows / 8u;
  if (id.x >= width || id.y >= height) { return; }
  let at = 8u * id.y * width + id.x;
  let a = x[at];
  let b = x[at + width];
  let c = x[at + 2u * width];
  let d = x[at + 3u * width];
  let e = x[at + 4u * width];
  let f = x[at + 5u * width];
  let g = x[at + 6u * width];
  let h = x[at + 7u * width];
  let to = 8u * id.x * height + id.y;
  y[to] = vec4<u32>(lower(a.x, b.x), lower(c.x, d.x), lower(e.x, f.x), lower(g.x, h.x));
  y[to + height] = vec4<u32>(upper(a.x, b.x), upper(c.x, d.x), upper(e.x, f.x), upper(g.x, h.x));
  y[to + 2u * height] = vec4<u32>(lower(a.y, b.y), lower(c.y, d.y), lower(e.y, f.y), lower(g.y, h.y));
  y[to + 3u * height] = vec4<u32>(upper(a.y, b.y), upper(c.y, d.y), upper(e.y, f.y), upper(g.y, h.y));
  y[to + 4u * height] = vec4<u32>(lower(a.z, b.z), lower(c.z, d.z), lower(e.z, f.z), lower(g.z, h.z));
  y[to + 5u * height] = vec4<u32>(upper(a.z, b.z), upper(c.z, d.z), upper(e.z, f.z), upper(g.z, h.z));
  y[to + 6u * height] = vec4<u32>(lower(a.w, b.w), lower(c.w, d.w), lower(e.w, f.w), lower(g.w, h.w));
  y[to + 7u * height] = vec4<u32>(upper(a.w, b.w), upper(c.w, d.w), upper(e.w, f.w), upper(g.w, h.w));
}
