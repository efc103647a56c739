/**
 * How fast an SAE is trained.
 * @module
 */
import type { Rng } from "../core/rng.ts";
import { elementCount, type Gpu } from "../gpu/mod.ts";
import { initSae } from "../train/init.ts";
import { SaeTrainer } from "../train/trainer.ts";
import type { Rate } from "./bench_timing.ts";

/** Times training steps of the embedded model's SAE. */
export async function benchTraining(
  gpu: Gpu,
  rng: Rng,
  isTiny: boolean,
): Promise<Rate[]> {
  const [batch, d_model, d_sae] = isTiny ? [64, 32, 64] : [1024, 192, 1536];
  const config = {
    batch,
    d_model,
    d_sae,
    inputScale: 1,
    clipNorm: 1,
    betas: [0.9, 0.999] as const,
    eps: 1e-8,
  };
  const params = initSae(new Float64Array(d_model), d_sae, rng.below(2 ** 31));
  using trainer = new SaeTrainer(gpu, config, params);
  const rows = Float32Array.from(
    { length: elementCount([batch, d_model]) },
    () => rng.normal(),
  );
  const steps = 10;
  const run = async () => {
    const start = performance.now();
    for (let i = 0; i < steps; i++) trainer.step(rows, { lambda: 1, lr: 1e-4 });
    await trainer.assertFinite();
    return (performance.now() - start) / steps;
  };
  await run();
  const ms = Math.min(await run(), await run());
  return [{
    section: "training",
    what: `SAE step, ${batch}×${d_model}×${d_sae}`,
    ms,
    rate: 1000 / ms,
    unit: "steps/s",
  }];
}
