/**
 * A trained SAE as files.
 * @module
 */
import { foldSae, type SaeWeights, saveSae } from "../core/sae_file.ts";
import type { TrainOptions } from "./train.ts";
import type { SaeTrainer } from "./trainer.ts";

/**
 * Writes an SAE, folded, so that it takes and gives raw activations.
 * @throws {RangeError} If a parameter is not finite.
 */
export async function saveTrained(
  trainer: SaeTrainer,
  { recipe, metadata, write, batches }: TrainOptions,
): Promise<void> {
  const { d_model, d_sae, architecture } = trainer.config;
  const { inputScale } = batches.statistics;
  const { log_threshold, ...params } = await trainer.params();
  const smallestKept = await trainer.smallestKept();
  // At inference a batchtopk is a jumprelu with one threshold: what a vector gives must not depend on others.
  const threshold = architecture === "batchtopk"
    ? new Float32Array(d_sae).fill(smallestKept ?? 0)
    : log_threshold?.map((value) => Math.exp(value));
  const weights: SaeWeights = {
    d_model,
    d_sae,
    ...params,
    ...(threshold && { threshold }),
  };
  const saved = architecture === "batchtopk" ? "jumprelu" : architecture;
  foldSae(weights, inputScale, saved);
  await saveSae(write, {
    weights,
    metadata: {
      ...metadata,
      architecture: saved,
      ...(architecture === "topk" && {
        k: recipe.k,
        ...(smallestKept !== undefined && {
          inferenceThreshold: smallestKept / inputScale,
        }),
      }),
      inputScale,
      nTokensTrained: recipe.steps * recipe.batch * recipe.accumulate,
      recipe: { ...recipe },
    },
  });
}
