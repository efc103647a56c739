import type { Tensor } from "../gpu/mod.ts";
import type { Olmo2Config } from "./olmo2_config.ts";
import type { LoadOptions, WeightLoader } from "./weight_loader.ts";

/** Weights of one block. Matrices are `[out, in]` in the file's type or quantized; norms are f32. */
export interface Olmo2Layer {
  /** Query, key and value projections, rows in this order, `[d_q + 2 d_kv, d_model]`. */
  readonly W_qkv: Tensor;
  /** Norms of queries and keys over their whole projections, f32 `[d_q + d_kv]`. */
  readonly qk_norm: Tensor;
  /** `[d_model, d_q]` */
  readonly W_o: Tensor;
  /** f32 `[d_model]` */
  readonly postAttentionNorm: Tensor;
  /** Gate and up projections, rows in this order, `[2 d_ffn, d_model]`. */
  readonly W_gate_up: Tensor;
  /** `[d_model, d_ffn]` */
  readonly W_down: Tensor;
  /** f32 `[d_model]` */
  readonly postFeedforwardNorm: Tensor;
}

/** Names and shapes of the tensors that are loaded, as Hugging Face names them. */
export function modelShapes(
  config: Olmo2Config,
  { nLayers = config.n_layers, withHead = true }: Pick<
    LoadOptions,
    "nLayers" | "withHead"
  > = {},
): [name: string, shape: number[]][] {
  const { vocab_size, d_model, tied_embeddings } = config;
  const head = withHead && !tied_embeddings ? ["lm_head.weight"] : [];
  return [
    ...["model.embed_tokens.weight", ...head]
      .map((name): [string, number[]] => [name, [vocab_size, d_model]]),
    ["model.norm.weight", [d_model]],
    ...Array.from({ length: nLayers }, (_, l) => layerShapes(config, l)).flat(),
  ];
}

/** Names and shapes of block `l`'s tensors, as Hugging Face names them. */
function layerShapes(
  config: Olmo2Config,
  l: number,
): [string, number[]][] {
  const { d_model, d_ffn, d_head, n_heads, n_kv_heads } = config;
  const [d_q, d_kv] = [n_heads * d_head, n_kv_heads * d_head];
  const shapes: Record<string, number[]> = {
    "self_attn.q_proj.weight": [d_q, d_model],
    "self_attn.k_proj.weight": [d_kv, d_model],
    "self_attn.v_proj.weight": [d_kv, d_model],
    "self_attn.o_proj.weight": [d_model, d_q],
    "self_attn.q_norm.weight": [d_q],
    "self_attn.k_norm.weight": [d_kv],
    "post_attention_layernorm.weight": [d_model],
    "mlp.gate_proj.weight": [d_ffn, d_model],
    "mlp.up_proj.weight": [d_ffn, d_model],
    "mlp.down_proj.weight": [d_model, d_ffn],
    "post_feedforward_layernorm.weight": [d_model],
  };
  return Object.entries(shapes).map((
    [name, shape],
  ) => [`model.layers.${l}.${name}`, shape]);
}

/** Puts block `l` on the GPU. */
export async function loadLayer(
  loader: WeightLoader,
  l: number,
): Promise<Olmo2Layer> {
  const at = `model.layers.${l}`;
  const projections = ["q", "k", "v"].map((x) =>
    `${at}.self_attn.${x}_proj.weight`
  );
  const norms = ["q", "k"].map((x) => `${at}.self_attn.${x}_norm.weight`);
  const gates = ["gate", "up"].map((x) => `${at}.mlp.${x}_proj.weight`);
  return {
    W_qkv: await loader.matrix(`${at}.self_attn.qkv_proj`, ...projections),
    qk_norm: await loader.vector(`${at}.self_attn.qk_norm`, ...norms),
    W_o: await loader.matrix(
      `${at}.self_attn.o_proj.weight`,
      `${at}.self_attn.o_proj.weight`,
    ),
    postAttentionNorm: await loader.vector(
      `${at}.post_attention_layernorm.weight`,
      `${at}.post_attention_layernorm.weight`,
    ),
    W_gate_up: await loader.matrix(`${at}.mlp.gate_up_proj`, ...gates),
    W_down: await loader.matrix(
      `${at}.mlp.down_proj.weight`,
      `${at}.mlp.down_proj.weight`,
    ),
    postFeedforwardNorm: await loader.vector(
      `${at}.post_feedforward_layernorm.weight`,
      `${at}.post_feedforward_layernorm.weight`,
    ),
  };
}
