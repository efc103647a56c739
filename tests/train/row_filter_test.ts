import { deepEqual, equal } from "node:assert/strict";
import { f32ToBf16 } from "../../core/dtype.ts";
import { medianOf, RowFilter, rowNormsOf } from "../../train/row_filter.ts";
import { assertClose } from "../assert_close.ts";

const ROWS = f32ToBf16(Float32Array.of(
  ...[3, 4],
  ...[NaN, 0],
  ...[60, 80],
  ...[0, -Infinity],
  ...[6, 8],
  ...[0, 0],
));
const TOKENS = Int32Array.of(10, 11, 12, 13, 14, 15);

Deno.test("RowFilter counts each vector under the first reason that holds", () => {
  const filter = new RowFilter({
    maxNorm: 4,
    skipTokens: [12, 13, 14],
    skipBadRows: true,
  });
  filter.learn(Float64Array.of(10, 5, 0));
  equal(filter.limit, 20);
  const { rows, dropped } = filter.apply(ROWS, 2, TOKENS);
  deepEqual([...rows], [...ROWS.subarray(0, 2), 0, 0]);
  deepEqual(dropped, { badRows: 2, highNorm: 0, skippedTokens: 2 });
  const byNorm = new RowFilter({ maxNorm: 2, skipBadRows: true });
  byNorm.learn(Float64Array.of(5, 5, 10));
  deepEqual(byNorm.apply(ROWS, 2).dropped, {
    badRows: 2,
    highNorm: 1, // 10 is the limit, 100 is beyond
    skippedTokens: 0,
  });
});

Deno.test("RowFilter gives the array itself when nothing is left out, and knows no limit before it learned one", () => {
  const finite = ROWS.slice(4, 6);
  equal(new RowFilter({}).apply(ROWS, 2).rows, ROWS);
  const filter = new RowFilter({ maxNorm: 1, skipBadRows: true });
  equal(filter.apply(finite, 2).rows, finite);
  filter.learn(new Float64Array(0));
  equal(filter.apply(finite, 2).rows, finite);
  equal(filter.needsTokens, false);
});

Deno.test("rowNormsOf() and medianOf() match their definitions", () => {
  const norms = rowNormsOf(ROWS.slice(4, 6), 2);
  assertClose(norms, [100], { rtol: 1e-15, label: "norms" });
  equal(medianOf(Float64Array.of(9, 1, 5)), 5);
  equal(medianOf(Float64Array.of(9, 1, 5, 7)), 7);
});
