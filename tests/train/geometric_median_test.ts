import { ok, throws } from "node:assert/strict";
import { bf16ToF32, f32ToBf16 } from "../../core/dtype.ts";
import { geometricMedian } from "../../train/geometric_median.ts";
import { assertClose, randomNormal } from "../assert_close.ts";

function medianOf(rows: readonly (readonly number[])[]): Float64Array {
  const bits = f32ToBf16(Float32Array.from(rows.flat()));
  return geometricMedian(bits, rows[0]!.length);
}

/** Length of the sum of unit vectors to all others, at the median 0. */
function pullAt(point: Float64Array, rows: Float32Array): number {
  const d_model = point.length;
  const pull = new Float64Array(d_model);
  for (let at = 0; at < rows.length; at += d_model) {
    const row = rows.subarray(at, at + d_model);
    const distance = Math.hypot(...row.map((x, j) => x - point[j]!));
    for (let j = 0; j < d_model; j++) {
      pull[j]! += (row[j]! - point[j]!) / distance;
    }
  }
  return Math.hypot(...pull);
}

Deno.test("geometricMedian() is the middle of a line, the center of a square and Fermat's point of a triangle", () => {
  assertClose(medianOf([[1], [2], [100]]), [2], { atol: 1e-4, label: "line" });
  const square = [[1, 1], [1, 3], [3, 1], [3, 3]];
  assertClose(medianOf(square), [2, 2], { atol: 1e-12, label: "square" });
  // From its Fermat point all corners are seen at 120°; of this one it lies at 1 − 1/√3 above the base.
  const point = medianOf([[-1, 0], [1, 0], [0, 4]]);
  assertClose(point, [0, 1 / Math.sqrt(3)], { atol: 1e-5, label: "triangle" });
});

Deno.test("geometricMedian() balances the pull of random vectors, and hardly moves for outliers", () => {
  const d_model = 7;
  const bits = f32ToBf16(randomNormal(301 * d_model, 5));
  const rows = bf16ToF32(bits);
  const median = geometricMedian(bits, d_model);
  // Each of 301 pulls with a force of 1.
  ok(pullAt(median, rows) < 1e-3, `pull ${pullAt(median, rows)}`);
  const spoiled = rows.slice();
  spoiled.fill(1e6, 0, 10 * d_model);
  const moved = geometricMedian(f32ToBf16(spoiled), d_model);
  const distance = Math.hypot(...moved.map((x, j) => x - median[j]!));
  ok(distance < 0.3, `moved by ${distance}`);
});

Deno.test("geometricMedian() stays on a vector that outweighs the others, and takes equal ones", () => {
  // The mean of these is a vector itself, and not the median.
  assertClose(medianOf([[0], [0], [0], [2], [8]]), [0], {
    atol: 1e-4,
    label: "on most",
  });
  assertClose(medianOf([[5, 6], [5, 6]]), [5, 6], { atol: 0, label: "equal" });
  assertClose(medianOf([[3, 4]]), [3, 4], { atol: 0, label: "one" });
});

Deno.test("geometricMedian() refuses no vectors, and broken ones", () => {
  throws(() => geometricMedian(new Uint16Array(0), 3), /RangeError: Cannot/);
  throws(() => geometricMedian(new Uint16Array(4), 3), /got 4 values/);
});
