import { deepEqual, equal, throws } from "node:assert/strict";
import { parseRecipe } from "../../train/recipe.ts";
import { scheduleAt } from "../../train/schedule.ts";
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

Deno.test("parseRecipe() fills in defaults and names what it refuses", () => {
  equal(parseRecipe({}, "r.json").clipNorm, 1);
  equal(parseRecipe({ lambda: 0 }, "r.json").lambda, 0);
  throws(() => parseRecipe({ lamda: 2 }, "r.json"), /"r.json".*lamda/);
  throws(() => parseRecipe({ lr: NaN }, "r.json"), /"r.json": field "lr"/);
  throws(() => parseRecipe({ batch: 0 }, "r.json"), /"r.json": field "batch"/);
});
