import assert from "node:assert/strict";
import { scoreWindows } from "../../core/score_windows.ts";

Deno.test("scoreWindows() scores every token but the first once, with enough before it", () => {
  for (const length of [0, 1, 2, 3, 7, 8, 9, 40, 101]) {
    for (const window of [2, 3, 8, 64]) {
      for (let stride = 1; stride < window; stride++) {
        const windows = scoreWindows(length, window, stride);
        const scored = windows.flatMap(({ start, end, scoredFrom }) => {
          assert.ok(start >= 0 && end - start <= window && scoredFrom > start);
          assert.ok(
            scoredFrom - start >= Math.min(scoredFrom, window - stride) ||
              scoredFrom === 1,
          );
          return Array.from(
            { length: end - scoredFrom },
            (_, i) => scoredFrom + i,
          );
        });
        assert.deepEqual(
          scored,
          Array.from({ length: Math.max(0, length - 1) }, (_, i) => i + 1),
        );
      }
    }
  }
});

Deno.test("scoreWindows() reads a document that fits at once", () => {
  assert.deepEqual(scoreWindows(8, 8, 4), [{
    start: 0,
    end: 8,
    scoredFrom: 1,
  }]);
  assert.deepEqual(scoreWindows(10, 8, 4), [
    { start: 0, end: 8, scoredFrom: 1 },
    { start: 2, end: 10, scoredFrom: 8 },
  ]);
});

Deno.test("scoreWindows() refuses sizes that score nothing", () => {
  for (const [window, stride] of [[1, 1], [8, 0], [8, 8], [8, 1.5], [NaN, 1]]) {
    assert.throws(
      () => scoreWindows(20, window!, stride!),
      /^RangeError: Cannot score 20 tokens in windows: expected a window of at least 2/,
    );
  }
});
