// Four numbers at a time, for a d_model that is a multiple of four.
alias Value = vec4<f32>;
const WIDTH = 4u;
fn total(value: Value) -> f32 { return dot(value, vec4<f32>(1.0)); }
