import { deepEqual, equal, throws } from "node:assert/strict";
import { parseRecipe } from "../../train/recipe.ts";
import { scheduleAt, stepsOf } from "../../train/schedule.ts";
import { assertClose } from "../assert_close.ts";

Deno.test("scheduleAt() warms λ up and lets lr fall as the reference steps do", async () => {
  const url = new URL("../fixtures/sae-l1/steps.json", import.meta.url);
  const { steps } = JSON.parse(await Deno.readTextFile(url));
  const options = {
    steps: 12,
    lambda: 0.4,
    lambdaWarmup: 1 / 3,
    lr: 3e-3,
    lrDecay: 0.2,
  };
  for (const { step, lambda, lr } of steps) {
    const got = scheduleAt(step, options);
    assertClose([got.lambda], [lambda], { atol: 1e-15, label: "lambda" });
    assertClose([got.lr], [lr], { atol: 1e-15, label: "lr" });
  }
  const none = { ...options, lambdaWarmup: 0, lrDecay: 0 };
  deepEqual(scheduleAt(0, none), { lambda: 0.4, lr: 3e-3 });
  deepEqual(scheduleAt(11, none), { lambda: 0.4, lr: 3e-3 });
});

Deno.test("scheduleAt() lets lr rise over lrWarmup, never past what its fall allows", () => {
  const options = { steps: 10, lambda: 1, lambdaWarmup: 0, lr: 8, lrDecay: 0 };
  const lrs = (fields: { lrWarmup?: number; lrDecay?: number }): number[] =>
    Array.from(
      { length: 10 },
      (_, step) => scheduleAt(step, { ...options, ...fields }).lr,
    );
  const flat = new Array<number>(10).fill(8);
  deepEqual(lrs({}), flat);
  deepEqual(lrs({ lrWarmup: 0 }), flat);
  // The first step learns already, and the last of the warm-up has all of lr.
  deepEqual(lrs({ lrWarmup: 0.4 }), [2, 4, 6, 8, 8, 8, 8, 8, 8, 8]);
  // A share that is no number of steps counts as the next larger one.
  deepEqual(lrs({ lrWarmup: 0.31 }), lrs({ lrWarmup: 0.4 }));
  // 0.1 · 3 · 10 is a little more than 3 steps in f64.
  deepEqual(stepsOf(0.1 * 3, 10), 3);
  deepEqual(
    lrs({ lrWarmup: 0.4, lrDecay: 0.4 }),
    [2, 4, 6, 8, 8, 8, 8, 6, 4, 2],
  );
  // Where they meet, the smaller one counts.
  const both = lrs({ lrWarmup: 1, lrDecay: 1 });
  const want = flat.map((_, step) => 8 * Math.min(step + 1, 10 - step) / 10);
  assertClose(both, want, { atol: 1e-14, label: "lr" });
});

Deno.test("parseRecipe() fills in defaults and names what it refuses", () => {
  equal(parseRecipe({}, "r.json").clipNorm, 1);
  equal(parseRecipe({ lambda: 0 }, "r.json").lambda, 0);
  throws(() => parseRecipe({ lamda: 2 }, "r.json"), /"r.json".*lamda/);
  throws(() => parseRecipe({ lr: NaN }, "r.json"), /"r.json": field "lr"/);
  throws(() => parseRecipe({ batch: 0 }, "r.json"), /"r.json": field "batch"/);
});
