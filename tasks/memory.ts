/**
 * What models and passes take of GPU memory, for the plan that tasks print.
 * @module
 */
import type { ModelFolder } from "../core/model_folder.ts";
import type { Olmo2Config } from "../core/olmo2_config.ts";

/** What of a model is loaded. */
export interface ModelPart {
  /** Blocks, from the first; all when absent. */
  readonly nLayers?: number;
  /** Whether the output head is; true when absent. */
  readonly withHead?: boolean;
}

/** Bytes of a model's weights as they are stored. */
export function modelBytes(
  { config, checkpoint }: Pick<ModelFolder, "config" | "checkpoint">,
  { nLayers = config.n_layers, withHead = true }: ModelPart = {},
): number {
  let bytes = 0;
  for (const name of checkpoint.names()) {
    const layer = /^model\.layers\.(\d+)\./.exec(name)?.[1];
    if (layer !== undefined && Number(layer) >= nLayers) continue;
    if (name === "lm_head.weight" && (!withHead || config.tied_embeddings)) {
      continue;
    }
    const { start, end } = checkpoint.info(name);
    bytes += end - start;
  }
  return bytes;
}

/**
 * Bytes of a pass over T tokens: activations, and the keys and values of
 * `nCaches` blocks (1 where the blocks share them).
 */
export function passBytes(
  config: Olmo2Config,
  T: number,
  nCaches: number,
): number {
  const { d_model, d_ffn, n_heads, n_kv_heads, d_head } = config;
  const [d_q, d_kv] = [n_heads * d_head, n_kv_heads * d_head];
  const activations = 2 * d_model + 3 * d_q + 2 * d_kv + 3 * d_ffn;
  return 4 * T * (activations + 2 * d_kv * nCaches);
}
