// Group i of 4 values of x, which is bound as pairs of words: f32.
fn x_at(i: u32) -> vec4<f32> { return bitcast<vec4<f32>>(vec4<u32>(x[2u * i], x[2u * i + 1u])); }
