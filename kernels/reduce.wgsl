// Sums and maxima over the 64 invocations of a workgroup; every invocation gets the result.
const LANES = 64u;
var<workgroup> lane_values: array<f32, LANES>;

fn sum_lanes(value: f32, lane: u32) -> f32 {
  lane_values[lane] = value;
  workgroupBarrier();
  if (lane < 8u) {
    var sum = 0.0;
    for (var i = lane; i < LANES; i += 8u) { sum += lane_values[i]; }
    lane_values[lane] = sum;
  }
  workgroupBarrier();
  var total = 0.0;
  for (var i = 0u; i < 8u; i++) { total += lane_values[i]; }
  workgroupBarrier();
  return total;
}

fn max_lanes(value: f32, lane: u32) -> f32 {
  lane_values[lane] = value;
  workgroupBarrier();
  if (lane < 8u) {
    var most = lane_values[lane];
    for (var i = lane; i < LANES; i += 8u) { most = max(most, lane_values[i]); }
    lane_values[lane] = most;
  }
  workgroupBarrier();
  var most = lane_values[0];
  for (var i = 1u; i < 8u; i++) { most = max(most, lane_values[i]); }
  workgroupBarrier();
  return most;
}
