/**
 * Finds out what is fastest for a training run on the adapter at hand, before the run.
 * @module
 */
import type { Gpu } from "../gpu/mod.ts";
import type { MatmulShape } from "../kernels/matmul.ts";
import { tuneMatmuls } from "../kernels/matmul_tuning.ts";
import { measureBreakEven } from "./break_even.ts";
import type { SaeTrainer } from "./trainer.ts";
import { fullConfig, type TrainerConfig } from "./training_tensors.ts";

/** The products of a step, as they are made with one window of features. */
export function productsOf(config: TrainerConfig): MatmulShape[] {
  const { batch, d_model, d_sae } = fullConfig(config);
  const f32 = { aType: "f32", bType: "f32" } as const;
  const rows = { ...f32, M: batch, N: d_sae, K: d_model };
  const columns = { layout: "km,kn", M: d_sae, N: d_model, K: batch } as const;
  return [
    { layout: "mk,nk", ...rows },
    { layout: "mk,kn", ...f32, M: batch, N: d_model, K: d_sae },
    { ...columns, ...f32 },
    { ...columns, ...f32, bType: "bf16" },
  ];
}

/** Times variants of a step's products that were not timed yet; before the trainer is made, which settles on them. */
export async function tuneProducts(
  gpu: Gpu,
  config: TrainerConfig,
): Promise<void> {
  await tuneMatmuls(gpu, productsOf(config));
}

/**
 * Up to how many activations of a batch the sparse path is taken: remembered, or measured on the trainer, which is used
 * up for it. Its own guess where tuning is off.
 */
export async function tunePath(gpu: Gpu, trainer: SaeTrainer): Promise<number> {
  const { architecture, batch, d_model, d_sae, k } = trainer.config;
  const key = `sparse path ${architecture} ${batch}x${d_model}x${d_sae}` +
    (architecture.endsWith("topk") ? ` k${k}` : "");
  if (gpu.tuning.isWanted(key)) {
    const most = await measureBreakEven(gpu, trainer);
    gpu.tuning.set(key, most === Infinity ? "always" : most);
  }
  const most = gpu.tuning.get(key);
  if (most === "always") return Infinity;
  return typeof most === "number" && most >= 0
    ? most
    : trainer.config.sparseEntries;
}
