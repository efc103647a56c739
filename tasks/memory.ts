/**
 * What models and passes take of GPU memory, for the plan that tasks print.
 * @module
 */
import type { ModelFolder } from "../core/model_folder.ts";
import type { Olmo2Config } from "../core/olmo2_config.ts";
import { modelShapes } from "../core/olmo2_weights.ts";
import { expectTensor, weightDtype } from "../core/weight_loader.ts";
import type { Checkpoint } from "../core/safetensors.ts";
import { bytesOf, type QuantizedDtype } from "../gpu/mod.ts";

/** What of a model is loaded. */
export interface ModelPart {
  /** Blocks, from the first; all when absent. */
  readonly nLayers?: number;
  /** Whether the output head is; true when absent. */
  readonly withHead?: boolean;
}

/** Sizes of a model, and how its files store it; a `ModelFolder` is one. */
export interface StoredModel {
  readonly config: Olmo2Config;
  /** The tensors of the files. */
  readonly checkpoint: Pick<Checkpoint, "info" | "fileOf">;
}

/** Bytes of weights on the GPU, by what they are of. */
export interface WeightBytes {
  readonly embedding: number;
  /** With the norms, and the table of rotary angles. */
  readonly blocks: number;
  /** 0 where the embedding serves for it, or it is not loaded. */
  readonly head: number;
}

/** Bytes of a model's weights on the GPU. */
export function weightBytes(
  { config, checkpoint }: StoredModel,
  quantize: QuantizedDtype | undefined,
  part: ModelPart = {},
): WeightBytes {
  const bytes = { embedding: 0, blocks: 0, head: 0 };
  for (const [name, shape] of modelShapes(config, part)) {
    const info = expectTensor(checkpoint, name, shape);
    const dtype = shape.length === 1
      ? "f32" // norms
      : weightDtype(info, quantize);
    const of = name === "model.embed_tokens.weight"
      ? "embedding"
      : name === "lm_head.weight"
      ? "head"
      : "blocks";
    bytes[of] += bytesOf(dtype, shape);
  }
  bytes.blocks += 4 * config.context_length * config.d_head;
  return bytes;
}

/** Bytes of a model's weights on the GPU, all together. */
export function modelBytes(
  model: StoredModel & Pick<ModelFolder, "quantize">,
  part: ModelPart = {},
): number {
  const { embedding, blocks, head } = weightBytes(model, model.quantize, part);
  return embedding + blocks + head;
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
