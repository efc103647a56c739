import { deepEqual, equal, throws } from "node:assert/strict";
import { f32ToBf16 } from "../../core/dtype.ts";
import { geometricMedian, MEDIAN_ROWS } from "../../train/geometric_median.ts";
import { RowMeasure } from "../../train/row_statistics.ts";
import { randomNormal } from "../assert_close.ts";

Deno.test("RowMeasure takes the median of every second vector when there are more than it may take, whatever the runs", () => {
  const d_model = 2;
  const n = MEDIAN_ROWS + 11;
  const rows = f32ToBf16(randomNormal(n * d_model, 9));
  const every = new Uint16Array(Math.ceil(n / 2) * d_model);
  for (let i = 0; 2 * i < n; i++) {
    every.set(rows.subarray(4 * i, 4 * i + 2), 2 * i);
  }
  const want = geometricMedian(every, d_model);
  for (const step of [n, 1001, 10_000]) {
    const measure = new RowMeasure(d_model, { init: "median", nMost: n });
    for (let at = 0; at < n; at += step) {
      measure.add(rows.subarray(at * d_model, (at + step) * d_model));
    }
    const statistics = measure.finish("rows", 5 * n);
    deepEqual(statistics.median, want);
    equal(statistics.n, 5 * n);
    equal(statistics.nMeasured, n);
  }
});

Deno.test("RowMeasure gives no median unless it is asked, and refuses vectors without length", () => {
  const measure = new RowMeasure(1, { nMost: 2 });
  measure.add(f32ToBf16(Float32Array.of(2, 4)));
  const { median, mean, meanNorm, variance, inputScale } = measure.finish("r");
  equal(median, undefined);
  deepEqual([mean[0], meanNorm, variance, inputScale], [3, 3, 1, 1 / 3]);
  throws(
    () => new RowMeasure(1, { nMost: 1 }).finish("r"),
    /RangeError: Cannot scale the vectors of "r": expected a mean norm above 0/,
  );
});
