import { deepEqual, equal, ok, throws } from "node:assert/strict";
import { Rng } from "../../core/rng.ts";
import { parseRecipe } from "../../train/recipe.ts";
import {
  CONTROL_EVERY,
  SparsityController,
} from "../../train/sparsity_controller.ts";
import { testGpu } from "../gpu_for_tests.ts";
import { smallRecipe, smallRun, sparseData } from "./small_run.ts";

/** An SAE as a controller sees it. */
interface Plant {
  readonly target: number;
  /** Steps in which log L0 comes e times closer to where it is going. */
  readonly lag: number;
  /** L0 at λ's factor 1, in the end. */
  readonly atOne: number;
  /** Change of log L0 for one of log λ, downwards. */
  readonly slope: number;
  /** Deviation of log L0 from batch to batch. */
  readonly noise: number;
}

/** L0 at every step of a run that begins with 800 features; the controller sees it 10 steps late, and noise. */
function simulate(
  { target, lag, atOne, slope, noise }: Plant,
  steps: number,
): number[] {
  const rng = new Rng(3);
  const controller = new SparsityController(target, steps);
  const L0: number[] = [];
  let log = Math.log(800);
  for (let step = 0; step < steps; step++) {
    if (step % CONTROL_EVERY === 0) {
      controller.update();
      controller.measure(Math.exp(log + noise * rng.normal()));
    }
    const end = Math.log(atOne) - slope * Math.log(controller.factor);
    log += (end - log) / lag;
    L0.push(Math.exp(log));
  }
  return L0;
}

Deno.test("SparsityController brings plants of all kinds to their target, and does not swing about it", () => {
  const targets = [[10, 30], [60, 30], [25, 30]] as const;
  for (const steps of [2000, 20_000]) {
    for (const lag of [0.02, 0.07, 0.15].map((share) => share * steps)) {
      for (const slope of [0.5, 1, 1.5]) {
        for (const [target, atOne] of targets) {
          const plant = { target, lag, atOne, slope, noise: 0.03 };
          const L0 = simulate(plant, steps);
          const label = `${JSON.stringify(plant)}, ${steps} steps`;
          for (const value of L0.slice(-0.1 * steps)) {
            ok(Math.abs(value / target - 1) < 0.05, `${label}: L0 ${value}`);
          }
          const lowest = Math.min(...L0);
          ok(lowest > 0.6 * target, `${label}: fell to ${lowest}`);
        }
      }
    }
  }
});

Deno.test("SparsityController keeps λ finite and above 0, whatever the L0 does, and comes back", () => {
  for (const extreme of [0, 1e-30, 1e30, Infinity]) {
    const controller = new SparsityController(20, 2000);
    for (let i = 0; i < 100_000; i++) {
      controller.measure(extreme);
      controller.update();
      const { factor } = controller;
      ok(factor > 0 && factor < Infinity, `${factor}`);
    }
    const sign = extreme > 20 ? 1 : -1;
    equal(Math.sign(Math.log(controller.factor)), sign);
    const before = controller.factor;
    for (let i = 0; i < 50; i++) {
      controller.measure(sign > 0 ? 5 : 80);
      controller.update();
    }
    equal(Math.sign(Math.log(controller.factor / before)), -sign);
  }
});

Deno.test("SparsityController does nothing without a measurement, and goes on from its state", () => {
  const one = new SparsityController(20, 2000);
  one.update();
  equal(one.factor, 1);
  one.measure(30);
  one.update();
  ok(one.factor > 1);
  one.measure(35);
  const other = new SparsityController(20, 2000);
  other.state = one.state;
  for (const controller of [one, other]) controller.update();
  deepEqual(other.state, one.state);
});

Deno.test("parseRecipe() refuses to steer a λ of 0", () => {
  throws(
    () => parseRecipe({ targetL0: 5, lambda: 0 }, "r.json"),
    /"r\.json": field "lambda": expected more than 0, .*: got 0/,
  );
});

Deno.test("trainSae() steers λ to an L0 from above and from below", async () => {
  const gpu = await testGpu();
  const data = sparseData(4000, 512);
  const fields = { batch: 64, lr: 1e-2, bufferRows: 5000 };
  for (const [lambda, steps] of [[0.4, 1300], [1.5, 500]] as const) {
    const recipe = smallRecipe({ ...fields, steps, lambda, targetL0: 4 });
    const { lines } = await smallRun(gpu, data, recipe, { metricsEvery: 4 });
    const last = lines.slice(-20).map(({ L0 }) => L0);
    const mean = last.reduce((sum, L0) => sum + L0 / last.length, 0);
    // The mean of 20 noisy batches of 64 vectors.
    ok(Math.abs(mean / 4 - 1) < 0.1, `λ ${lambda}: L0 ${mean}`);
  }
});
