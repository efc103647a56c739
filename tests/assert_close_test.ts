import assert, { AssertionError } from "node:assert/strict";
import {
  assertClose,
  assertRelativeError,
  poison,
  randomNormal,
  relativeError,
} from "./assert_close.ts";

Deno.test("assertClose() passes when every difference is at its tolerance or below", () => {
  assertClose([1, -2, 100.5], [1.25, -2, 100], { atol: 0.5, label: "acts" });
  assertClose([0, 110], [0, 100], { rtol: 0.1, label: "acts" });
  assertClose(new Float32Array([0.5]), [0.5], { label: "acts" });
});

Deno.test("assertClose() names the worst, the count and the first when elements differ", () => {
  const want = [0, 1, 2, 3, 4, 5];
  const got = [0, 1.5, 2, 3, 6, 5];
  assert.throws(
    () => assertClose(got, want, { atol: 0.25, label: "acts", shape: [2, 3] }),
    new AssertionError({
      message:
        "acts[1, 1]: got 6, expected 4 (|Δ| 2.0e+0 > atol 2.5e-1); 2 of 6 differ, first at [0, 1]",
    }),
  );
});

Deno.test("assertClose() names both parts of the limit when a share is allowed", () => {
  assert.throws(
    () => assertClose([12], [10], { atol: 0.5, rtol: 0.1, label: "x" }),
    {
      message:
        "x[0]: got 12, expected 10 (|Δ| 2.0e+0 > 1.5e+0 = atol 0.5 + rtol 0.1 · |expected|); 1 of 1 differ, first at [0]",
    },
  );
});

Deno.test("assertClose() fails when a value is not finite on either side", () => {
  const pairs = [[NaN, 1], [1, NaN], [NaN, NaN], [Infinity, Infinity]] as const;
  for (const [got, want] of pairs) {
    assert.throws(
      () => assertClose([9, got], [9, want], { atol: 1e30, label: "acts" }),
      /^AssertionError.*: acts\[1\]: got (NaN|1|Infinity), expected .*1 of 2 differ/,
    );
  }
});

Deno.test("assertClose() refuses to compare when lengths, shape or tolerance make no sense", () => {
  const label = "acts";
  assert.throws(() => assertClose([1], [1, 2], { label }), {
    name: "TypeError",
    message: "Cannot compare acts: expected 2 values of shape [2]: got 1",
  });
  assert.throws(
    () => assertClose([1, 2], [1, 2], { label, shape: [3] }),
    TypeError,
  );
  assert.throws(() => assertClose([], [], { label }), RangeError);
  for (const atol of [NaN, -1, Infinity]) {
    assert.throws(() => assertClose([1], [1], { label, atol }), RangeError);
  }
});

Deno.test("relativeError() is the ratio of the norms when all is finite", () => {
  assert.equal(relativeError([3, 4.5], [3, 4]), 0.1);
  assert.equal(relativeError([0, 0], [0, 0]), 0);
  assert.equal(relativeError([0, 1], [0, 0]), Infinity);
});

Deno.test("relativeError() is infinite when a value is not finite", () => {
  assert.equal(relativeError([NaN, 1], [1, 1]), Infinity);
  assert.equal(relativeError([1, 1], [Infinity, 1]), Infinity);
  assert.equal(relativeError(poison(2), poison(2)), Infinity);
});

Deno.test("assertRelativeError() passes at its limit and names tensor and element when above", () => {
  assertRelativeError([3, 4.5], [3, 4], 0.1, "logits");
  assert.throws(() => assertRelativeError([3, 4.5], [3, 4], 0.05, "logits"), {
    name: "AssertionError",
    message:
      "logits: relative error 1.0e-1 > 0.05; worst at [1] of 2: got 4.5, expected 4 (|Δ| 5.0e-1)",
  });
  assert.throws(
    () => assertRelativeError([3, NaN], [3, 4], 1, "logits"),
    /logits: relative error Infinity > 1; worst at \[1\]/,
  );
  assert.throws(() => assertRelativeError([1], [1], NaN, "x"), RangeError);
});

Deno.test("randomNormal() has mean 0 and the given deviation when many are drawn", () => {
  const n = 10_000;
  const draws = randomNormal(n, 7, 3);
  const mean = draws.reduce((sum, x) => sum + x, 0) / n;
  const variance = draws.reduce((sum, x) => sum + (x - mean) ** 2, 0) / n;
  // Four standard errors: 4 · 3/√n for the mean, 4 · √(2/n) relative for the variance.
  assert.ok(Math.abs(mean) < 0.12, `mean ${mean}`);
  assert.ok(Math.abs(variance / 9 - 1) < 0.057, `variance ${variance}`);
});

Deno.test("randomNormal() repeats when the seed is the same, and only then", () => {
  assert.deepEqual(randomNormal(5, 1), randomNormal(5, 1));
  assert.notDeepEqual(randomNormal(5, 1), randomNormal(5, 2));
});

Deno.test("poison() holds nothing but NaN when asked for a length", () => {
  assert.deepEqual(poison(3), new Float32Array([NaN, NaN, NaN]));
});
