// x[t, :] += sum_e f_e · change_e · W_dec[row_e, :]     over the entries e in [tokens[t].x, tokens[t].y)
// Decoding the changed activations and keeping the reconstruction error is this rank-k update; b_dec cancels.
//   act = pre > threshold ? pre : 0 with pre = W_enc[row] · x[t] + b_enc; a threshold of 0 is relu, NO_THRESHOLD is linear
//   change = value - act (clamp) | value (add) | max(act, value) - act (min) | act · (value - 1) (scale) | 0 (watch)
//   f = clamp(1 - (n - after) / decay, 0, 1) for the n = tokens[t].z tokens of the reply up to t; 0 before `after`, 1 without decay
// acts[t, slot] = act, before the change, of the entries that have a slot.
// One workgroup of 64 per token: all activations are taken, eight entries at a time, before anything is changed.
struct Entry {
  b_enc: f32,
  mode: u32,
  value: f32,
  threshold: f32,
  after: u32,
  decay: u32, // 0: none
  slot: u32,  // from n_captured on: none
  row: u32,   // of W_enc and W_dec
}
@group(0) @binding(0) var<storage, read> W_enc: array<Value>;      // [rows, d_model]
@group(0) @binding(1) var<storage, read> W_dec: array<Value>;      // [rows, d_model]
@group(0) @binding(2) var<storage, read> entry: array<Entry>;      // [entries]
@group(0) @binding(3) var<storage, read> tokens: array<vec4<u32>>; // [T]: first entry, one past the last, n, unused
@group(0) @binding(4) var<storage, read_write> x: array<Value>;    // [T, d_model]
@group(0) @binding(5) var<storage, read_write> acts: array<f32>;   // [T, n_captured]; not touched when n_captured is 0
struct Uniforms { T: u32, d_model: u32, n_captured: u32 }
@group(0) @binding(6) var<uniform> u: Uniforms;

const LANES = 64u;
const MAX_ENTRIES = 2048u;
const BATCH = 8u;
const SHARES = LANES / BATCH; // lanes that sum the products of one entry
var<workgroup> delta: array<f32, MAX_ENTRIES>;
var<workgroup> products: array<f32, LANES * BATCH>;

fn row_length() -> u32 { return u.d_model / WIDTH; } // in Values

fn factor(e: u32, n: u32) -> f32 {
  if (entry[e].mode > 3u || n < entry[e].after) { return 0.0; }
  if (entry[e].decay == 0u) { return 1.0; }
  return saturate(1.0 - f32(n - entry[e].after) / f32(entry[e].decay));
}

fn is_needed(e: u32, n: u32) -> bool {
  return entry[e].slot < u.n_captured || factor(e, n) > 0.0;
}

fn change(act: f32, mode: u32, value: f32) -> f32 {
  switch mode {
    case 0u: { return value - act; }
    case 1u: { return value; }
    case 2u: { return max(act, value) - act; }
    default: { return act * (value - 1.0); }
  }
}

// Where the rows of four entries start.
fn four_rows(e: u32) -> vec4<u32> {
  return vec4<u32>(entry[e].row, entry[e + 1u].row, entry[e + 2u].row, entry[e + 3u].row) * row_length();
}

// This lane's share of the dot products of entries [e, e + n) with the row of x at `at`.
fn multiply(e: u32, n: u32, reply: u32, at: u32, lane: u32) {
  var i = 0u;
  for (; i + 4u <= n; i += 4u) {
    let first = e + i;
    if (!(is_needed(first, reply) || is_needed(first + 1u, reply) || is_needed(first + 2u, reply) ||
        is_needed(first + 3u, reply))) { continue; }
    let row = four_rows(first);
    var s0 = Value();
    var s1 = Value();
    var s2 = Value();
    var s3 = Value();
    for (var j = lane; j < row_length(); j += LANES) {
      let value = x[at + j];
      s0 += value * W_enc[row.x + j];
      s1 += value * W_enc[row.y + j];
      s2 += value * W_enc[row.z + j];
      s3 += value * W_enc[row.w + j];
    }
    products[i * LANES + lane] = total(s0);
    products[(i + 1u) * LANES + lane] = total(s1);
    products[(i + 2u) * LANES + lane] = total(s2);
    products[(i + 3u) * LANES + lane] = total(s3);
  }
  for (; i < n; i++) {
    if (!is_needed(e + i, reply)) { continue; }
    let row = entry[e + i].row * row_length();
    var sum = Value();
    for (var j = lane; j < row_length(); j += LANES) { sum += x[at + j] * W_enc[row + j]; }
    products[i * LANES + lane] = total(sum);
  }
}

// The change of one entry, from the sums of its products; stores the activation where it is asked for.
fn finish(e: u32, i: u32, t: u32, reply: u32) -> f32 {
  var pre = entry[e].b_enc;
  for (var k = 0u; k < SHARES; k++) { pre += products[i * LANES + k]; }
  let act = select(pre, 0.0, pre <= entry[e].threshold); // NaN is not below, and stays
  if (entry[e].slot < u.n_captured) { acts[t * u.n_captured + entry[e].slot] = act; }
  let f = factor(e, reply);
  if (f > 0.0) { return f * change(act, entry[e].mode, entry[e].value); }
  return 0.0;
}

fn is_zero(d: f32) -> bool { return (bitcast<u32>(d) << 1u) == 0u; } // by its bits: a NaN is not

// Adds the changes of `count` entries from `first` on to this lane's columns of the row of x at `at`.
fn update(first: u32, count: u32, at: u32, lane: u32) {
  var i = 0u;
  for (; i + 4u <= count; i += 4u) {
    let d = vec4<f32>(delta[i], delta[i + 1u], delta[i + 2u], delta[i + 3u]);
    if (is_zero(d.x) && is_zero(d.y) && is_zero(d.z) && is_zero(d.w)) { continue; }
    let row = four_rows(first + i);
    for (var j = lane; j < row_length(); j += LANES) {
      x[at + j] += d.x * W_dec[row.x + j] + d.y * W_dec[row.y + j] + d.z * W_dec[row.z + j] + d.w * W_dec[row.w + j];
    }
  }
  for (; i < count; i++) {
    let d = delta[i];
    if (is_zero(d)) { continue; }
    let row = entry[first + i].row * row_length();
    for (var j = lane; j < row_length(); j += LANES) { x[at + j] += d * W_dec[row + j]; }
  }
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n_wg: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) {
  let t = wg.y * n_wg.x + wg.x;
  if (t >= u.T) { return; }
  let token = tokens[t];
  let at = t * row_length();
  for (var first = token.x; first < token.y; first += BATCH) {
    let n = min(BATCH, token.y - first);
    multiply(first, n, token.z, at, lane);
    workgroupBarrier();
    let share = lane / SHARES * LANES + lane % SHARES;
    if (lane / SHARES < n) {
      var sum = 0.0;
      for (var k = 0u; k < LANES; k += SHARES) { sum += products[share + k]; }
      products[share] = sum;
    }
    workgroupBarrier();
    if (lane < n) { delta[first - token.x + lane] = finish(first + lane, lane, t, token.z); }
    workgroupBarrier();
  }
  if (token.x < token.y) { update(token.x, token.y - token.x, at, lane); }
}
