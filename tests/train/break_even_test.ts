import { deepEqual, equal, ok } from "node:assert/strict";
import { measureBreakEven } from "../../train/break_even.ts";
import { initSae } from "../../train/init.ts";
import type { TrainedArchitecture } from "../../train/recipe.ts";
import { SaeTrainer, type TrainerConfig } from "../../train/trainer.ts";
import { tunePath } from "../../train/tune.ts";
import { assertClose, randomNormal } from "../assert_close.ts";
import { testGpu } from "../gpu_for_tests.ts";

const D = 32;

async function makeTrainer(
  architecture: TrainedArchitecture,
  fields: Partial<TrainerConfig> = {},
): Promise<SaeTrainer> {
  const config = configOf(architecture, fields);
  const init = initSae(new Float64Array(D), config.d_sae, 1, architecture);
  return new SaeTrainer(await testGpu(), config, init);
}

function configOf(
  architecture: TrainedArchitecture,
  fields: Partial<TrainerConfig> = {},
): TrainerConfig {
  return {
    architecture,
    d_model: D,
    d_sae: 512,
    batch: 64,
    k: 16,
    inputScale: 1,
    clipNorm: 1,
    betas: [0.9, 0.999],
    eps: 1e-8,
    ...fields,
  };
}

Deno.test("measureBreakEven() finds a number of activations that there is room for, whatever the architecture", async () => {
  const gpu = await testGpu();
  for (const architecture of ["relu", "jumprelu"] as const) {
    using trainer = await makeTrainer(architecture, { accumulate: 2 });
    const most = await measureBreakEven(gpu, trainer);
    const isPlausible = most === Infinity ||
      Number.isInteger(most) && most >= 0 && most <= trainer.room;
    ok(isPlausible, `${architecture}: ${most} of ${trainer.room}`);
  }
  for (const architecture of ["topk", "batchtopk"] as const) {
    using trainer = await makeTrainer(architecture);
    const most = await measureBreakEven(gpu, trainer);
    ok(most === 0 || most === Infinity, `${architecture}: ${most}`);
  }
});

Deno.test("measureBreakEven() takes few activations as cheaper than many", async () => {
  const gpu = await testGpu();
  // At 16 of 16,384 features the sparse path does a hundredth of the dense one's work.
  using trainer = await makeTrainer("topk", {
    d_sae: 16_384,
    sparseEntries: Infinity,
  });
  equal(await measureBreakEven(gpu, trainer), Infinity);
});

Deno.test("tunePath() measures once, and what it leaves trains as if it had not", async () => {
  using gpu = await testGpu({});
  gpu.tuning.mode = "on";
  const config = configOf("relu");
  const init = initSae(new Float64Array(D), 512, 1, "relu");
  const x = randomNormal(64 * D, 3);
  const losses: number[] = [];
  const found: number[] = [];
  for (const isTuned of [true, true, false]) {
    using trainer = new SaeTrainer(gpu, config, init);
    if (isTuned) {
      found.push(await tunePath(gpu, trainer));
      equal(trainer.steps > 0, found.length === 1, "steps were timed");
      trainer.reset();
      trainer.writeParams(init);
    }
    for (let step = 0; step < 3; step++) {
      trainer.step(x, { lambda: 0.1, lr: 1e-3 }, { metrics: true });
    }
    await trainer.settle();
    const metrics = trainer.takeMetrics();
    deepEqual(metrics.map(({ step }) => step), [0, 1, 2]);
    losses.push(metrics[2]!.loss);
  }
  equal(found[0], found[1]);
  // The path may be another one, with sums in another order.
  assertClose(losses.slice(0, 2), [losses[2]!, losses[2]!], {
    rtol: 1e-5,
    label: "loss",
  });
});
