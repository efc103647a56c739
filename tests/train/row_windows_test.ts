import type { Gpu } from "../../gpu/mod.ts";
import { SaeTrainer, type TrainerConfig } from "../../train/trainer.ts";
import type { SaeParams } from "../../train/init.ts";
import { assertRelativeError, randomNormal } from "../assert_close.ts";
import { testGpu } from "../gpu_for_tests.ts";
import { randomParams, smallConfig } from "./compare_steps.ts";

/** The parameters after three steps. */
async function train(gpu: Gpu, config: TrainerConfig): Promise<SaeParams> {
  using trainer = new SaeTrainer(gpu, config, randomParams(config));
  for (let step = 0; step < 3; step++) {
    const x = randomNormal(config.batch * config.d_model, 50 + step);
    trainer.step(x, { lambda: 0.5, lr: 0.01 });
  }
  await trainer.assertFinite();
  return await trainer.params();
}

/** Trains through small bindings as through large ones. */
async function compareBindings(
  config: TrainerConfig,
  maxBindingBytes: number,
): Promise<void> {
  using narrow = await testGpu({ maxBindingBytes });
  const [got, want] = [
    await train(narrow, config),
    await train(await testGpu(), config),
  ];
  for (const name of ["W_enc", "b_enc", "W_dec", "b_dec"] as const) {
    // Sums in another order, and now and then an 8-bit code that is rounded to the other side.
    assertRelativeError(got[name], want[name], 1e-3, name);
  }
}

Deno.test("8-bit moments follow the weights where their buffers hold another number of rows", async () => {
  // 128 rows of W in a buffer, and 576 of codes: rows 512 to 640 of W have their codes in two.
  const sizes = { B: 9, d_model: 28, d_sae: 704 };
  await compareBindings(smallConfig(sizes, { moments: "q8" }), 16_200);
});

for (const architecture of ["relu", "jumprelu"] as const) {
  Deno.test(`${architecture} trains in a dozen windows, with products that turn their operands`, async () => {
    const sizes = { B: 96, d_model: 96, d_sae: 1536 };
    await compareBindings(smallConfig(sizes, { architecture }), 49_152);
  });
}
