// One number at a time, for any d_model.
alias Value = f32;
const WIDTH = 1u;
fn total(value: Value) -> f32 { return value; }
