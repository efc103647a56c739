/**
 * Sizes of the published OLMo-2 models, for plans and benchmarks without their files.
 * @module
 */
import type { Olmo2Config } from "../core/olmo2_config.ts";

function sized(
  d_model: number,
  n_layers: number,
  n_heads: number,
  n_kv_heads: number,
  d_ffn: number,
): Olmo2Config {
  return {
    d_model,
    n_layers,
    n_heads,
    n_kv_heads,
    d_head: 128,
    d_ffn,
    vocab_size: 100_352,
    context_length: 4096,
    rms_norm_eps: 1e-6,
    rope_theta: 500_000,
    tied_embeddings: false,
    bos_token_id: null,
    eos_token_ids: [],
    pad_token_id: null,
  };
}

/** By what they are called. */
export const OLMO2_SIZES = {
  "1B": sized(2048, 16, 16, 16, 8192),
  "7B": sized(4096, 32, 32, 32, 11_008),
  "13B": sized(5120, 40, 40, 40, 13_824),
  "32B": sized(5120, 64, 40, 8, 27_648),
} as const satisfies Readonly<Record<string, Olmo2Config>>;
