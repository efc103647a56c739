// Where the entries of each row start in the lists of the sparse path, and whether that path is taken:
//   row_start[b] = sum over earlier rows of row_entries, each rounded up to 4;  row_start[B] = all
//   branch[0] = row_start[B] < limit (1: sparse) or not (0: dense)
// Sums stop at MOST: 4,096 rows of 2^20 entries are 2^32, which would wrap around to an empty list.
// One workgroup of 64: each lane owns a run of rows.
@group(0) @binding(0) var<storage, read> row_entries: array<u32>;     // [B]
@group(0) @binding(1) var<storage, read_write> row_start: array<u32>; // [n_starts], n_starts = B + 1
@group(0) @binding(2) var<storage, read_write> branch: array<u32>;    // [1]
struct Uniforms { B: u32, limit: u32 }
@group(0) @binding(3) var<uniform> u: Uniforms;

var<workgroup> totals: array<u32, 64>;

const MOST = 0x7fffffffu; // no list is as long; the sum of two of these fits a word

fn padded(b: u32) -> u32 { return (row_entries[b] + 3u) & 0xfffffffcu; }

fn add(a: u32, b: u32) -> u32 { return min(a + b, MOST); }

@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) lane: u32) {
  let run = (u.B + 63u) / 64u;
  let begin = min(lane * run, u.B);
  let end = min(begin + run, u.B);
  var total = 0u;
  for (var b = begin; b < end; b++) { total = add(total, padded(b)); }
  totals[lane] = total;
  workgroupBarrier();
  var at = 0u;
  for (var other = 0u; other < lane; other++) { at = add(at, totals[other]); }
  for (var b = begin; b < end; b++) {
    row_start[b] = at;
    at = add(at, padded(b));
  }
  if (lane == 63u) {
    row_start[u.B] = at;
    branch[0] = u32(at < u.limit);
  }
}
