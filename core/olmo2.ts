import type { Gpu, Recorder, Tensor } from "../gpu/mod.ts";
import { addNorm } from "../kernels/add_norm.ts";
import {
  attention,
  type AttentionPlan,
  planAttention,
} from "../kernels/attention.ts";
import { embed } from "../kernels/embed.ts";
import { matmul } from "../kernels/matmul.ts";
import { qkNormRope } from "../kernels/qk_norm_rope.ts";
import { rmsNorm } from "../kernels/rms_norm.ts";
import { siluMul } from "../kernels/silu_mul.ts";
import { type KvCache, PAGE_TOKENS } from "./kv_cache.ts";
import type { Olmo2Config } from "./olmo2_config.ts";
import { loadLayer, modelShapes, type Olmo2Layer } from "./olmo2_weights.ts";
import { ropeTable } from "./rope.ts";
import type { Checkpoint } from "./safetensors.ts";
import type { TokenBatch } from "./token_batch.ts";
import { type LoadOptions, WeightLoader } from "./weight_loader.ts";

/**
 * What to do with the residual stream after block `layer`: read it (capture) or
 * change it in place (steering, an SAE's reconstruction, an ablation).
 * `resid` is f32 `[T, d_model]`, tokens in the order of the batch.
 */
export type ResidHook = (rec: Recorder, layer: number, resid: Tensor) => void;

/** Options of {@link Olmo2.forward}. */
export interface ForwardOptions {
  /** Blocks to run, from the first; all loaded ones when absent. */
  readonly nLayers?: number;
  /** Called after every block. */
  readonly hook?: ResidHook;
}

/**
 * OLMo-2: a decoder that norms queries and keys over their whole projections and
 * adds the normed *outputs* of attention and MLP to the residual stream.
 * Weights stay in the checkpoint's type or are quantized; activations are f32.
 * Source: Hugging Face `Olmo2ForCausalLM`.
 */
export class Olmo2 implements Disposable {
  /** Sizes and constants. */
  readonly config: Olmo2Config;
  /** The device that holds the weights. */
  readonly gpu: Gpu;
  readonly #owned: DisposableStack;
  readonly #embedding: Tensor; // [vocab, d_model]
  readonly #layers: readonly Olmo2Layer[];
  readonly #finalNorm: Tensor; // f32 [d_model]
  readonly #head: Tensor | undefined; // [vocab, d_model]
  readonly #rope: Tensor; // f32 [context, d_head]: cos and sin of d_head/2 angles, interleaved

  private constructor(
    gpu: Gpu,
    config: Olmo2Config,
    weights: {
      owned: DisposableStack;
      embedding: Tensor;
      layers: Olmo2Layer[];
      finalNorm: Tensor;
      head: Tensor | undefined;
      rope: Tensor;
    },
  ) {
    this.gpu = gpu;
    this.config = config;
    this.#owned = weights.owned;
    this.#embedding = weights.embedding;
    this.#layers = weights.layers;
    this.#finalNorm = weights.finalNorm;
    this.#head = weights.head;
    this.#rope = weights.rope;
  }

  /**
   * Puts a checkpoint on the GPU, or as many of its blocks as are needed.
   * Names and shapes of all tensors are checked before memory is taken.
   * @throws {TypeError} If a tensor has the wrong shape or type, naming file and tensor.
   * @throws {RangeError} If the context is too long for the adapter, or a weight to be quantized is not finite.
   */
  static async load(
    gpu: Gpu,
    checkpoint: Checkpoint,
    config: Olmo2Config,
    options: LoadOptions = {},
  ): Promise<Olmo2> {
    const { nLayers = config.n_layers, withHead = true } = options;
    using owned = new DisposableStack();
    const loader = new WeightLoader(gpu, checkpoint, owned, options);
    loader.expect(modelShapes(config, options));
    const rope = owned.use(ropeTable(gpu, config, options.rope ?? "f32"));
    const embedding = await loader.matrix(
      "model.embed_tokens.weight",
      "model.embed_tokens.weight",
    );
    const layers: Olmo2Layer[] = [];
    for (let l = 0; l < nLayers; l++) layers.push(await loadLayer(loader, l));
    const finalNorm = await loader.vector(
      "model.norm.weight",
      "model.norm.weight",
    );
    const ownHead = withHead && !config.tied_embeddings
      ? await loader.matrix("lm_head.weight", "lm_head.weight")
      : undefined;
    const head = withHead ? ownHead ?? embedding : undefined;
    await loader.finish();
    return new Olmo2(gpu, config, {
      owned: owned.move(),
      embedding,
      layers,
      finalNorm,
      head,
      rope,
    });
  }

  /** Blocks on the GPU. */
  get nLayers(): number {
    return this.#layers.length;
  }

  /**
   * Runs the blocks over a batch's tokens and returns the residual stream,
   * f32 `[T, d_model]`, which the workspace owns and the next pass overwrites.
   */
  forward(
    rec: Recorder,
    work: Workspace,
    cache: KvCache,
    options: ForwardOptions = {},
  ): Tensor {
    const { nLayers = this.nLayers, hook } = options;
    const { resid, ids } = work.tokens;
    embed(rec, { ids, table: this.#embedding, resid });
    for (const [l, layer] of this.#layers.slice(0, nLayers).entries()) {
      this.#attention(rec, work, layer, cache, l); //      q_norm, k_norm, rope, softmax(qkᵀ)v, o_proj
      this.#addNorm(rec, work, layer.postAttentionNorm); // resid_mid = resid + norm(attention)
      this.#mlp(rec, work, layer); //                       down_proj(silu(gate) · up)
      this.#addNorm(rec, work, layer.postFeedforwardNorm); // resid_post[l]
      hook?.(rec, l, resid);
    }
    return resid;
  }

  /** The final norm of rows of the residual stream: y = norm(x), both f32 `[n, d_model]`. */
  finalNorm(rec: Recorder, x: Tensor, y: Tensor): void {
    rmsNorm.run(rec, { x, weight: this.#finalNorm, y }, {
      eps: this.config.rms_norm_eps,
    });
  }

  /**
   * Logits of final-normed rows: f32 `[n, d_model]` → f32 `[n, vocab]`.
   * @throws {Error} If the model was loaded without its head.
   */
  logits(rec: Recorder, normed: Tensor, logits: Tensor): void {
    if (!this.#head) {
      throw new Error(
        "Cannot compute logits: the model was loaded without its head",
      );
    }
    matmul(rec, { layout: "mk,nk", A: normed, B: this.#head, C: logits });
  }

  #attention(
    rec: Recorder,
    work: Workspace,
    layer: Olmo2Layer,
    cache: KvCache,
    l: number,
  ): void {
    const { n_heads, n_kv_heads, d_head, rms_norm_eps } = this.config;
    const { resid, qkv, q, z, blockOut, places, blocks } = work.tokens;
    const [K, V, pages] = [cache.keys(l), cache.values(l), cache.table];
    const [d_q, d_kv] = [n_heads * d_head, n_kv_heads * d_head];
    matmul(rec, { layout: "mk,nk", A: resid, B: layer.W_qkv, C: qkv });
    qkNormRope.run(rec, {
      qkv,
      qk_norm: layer.qk_norm,
      rope: this.#rope,
      places,
      pages,
      q,
      K,
      V,
    }, {
      d_q,
      d_kv,
      d_head,
      PAGE_TOKENS,
      eps: rms_norm_eps,
    });
    attention(rec, { q, K, V, blocks, pages, z }, work.attention, {
      d_head,
      pageTokens: PAGE_TOKENS,
    });
    matmul(rec, { layout: "mk,nk", A: z, B: layer.W_o, C: blockOut });
  }

  #mlp(rec: Recorder, work: Workspace, layer: Olmo2Layer): void {
    const { resid, gateUp, ffn, blockOut } = work.tokens;
    matmul(rec, { layout: "mk,nk", A: resid, B: layer.W_gate_up, C: gateUp });
    siluMul.run(rec, { gate_up: gateUp, y: ffn });
    matmul(rec, { layout: "mk,nk", A: ffn, B: layer.W_down, C: blockOut });
  }

  #addNorm(rec: Recorder, work: Workspace, weight: Tensor): void {
    const { resid, blockOut } = work.tokens;
    addNorm.run(rec, { x: blockOut, weight, resid }, {
      eps: this.config.rms_norm_eps,
    });
  }

  /** Frees the weights. */
  [Symbol.dispose](): void {
    this.#owned.dispose();
  }
}

/** The tensors of one pass, each of exactly T rows but for blocks. */
export interface TokenTensors {
  /** u32 [T] */
  readonly ids: Tensor;
  /** u32 [T, 2] */
  readonly places: Tensor;
  /** u32 [n_blocks, 4]: runs of tokens that attend together */
  readonly blocks: Tensor;
  /** f32 [T, d_model] */
  readonly resid: Tensor;
  /** f32 [T, d_q + 2 d_kv] */
  readonly qkv: Tensor;
  /** f32 [T, d_q] */
  readonly q: Tensor;
  /** f32 [T, d_q] */
  readonly z: Tensor;
  /** f32 [T, d_model]: what attention or MLP adds, before its norm */
  readonly blockOut: Tensor;
  /** f32 [T, 2 d_ffn] */
  readonly gateUp: Tensor;
  /** f32 [T, d_ffn] */
  readonly ffn: Tensor;
}

/** Activations of a pass over up to `maxTokens` tokens; made once and used for every pass. */
export class Workspace implements Disposable {
  /** Most tokens of a pass. */
  readonly maxTokens: number;
  readonly #owned = new DisposableStack();
  readonly #all: TokenTensors;
  readonly #gpu: Gpu;
  #current: TokenTensors | undefined;
  #attention: AttentionPlan | undefined;

  /** Most tokens whose activations an adapter binds, and which take at most `maxBytes`; at least 1. */
  static mostTokens(
    { limits }: Pick<Gpu, "limits">,
    config: Olmo2Config,
    maxBytes = Infinity,
  ): number {
    const { d_model, d_ffn, n_heads, n_kv_heads, d_head } = config;
    const [d_q, d_kv] = [n_heads * d_head, n_kv_heads * d_head];
    const widest = Math.max(d_model, d_q + 2 * d_kv, 2 * d_ffn);
    const all = 2 * d_model + 3 * d_q + 2 * d_kv + 3 * d_ffn;
    const bound = limits.maxStorageBufferBindingSize / (4 * widest);
    return Math.max(1, Math.floor(Math.min(bound, maxBytes / (4 * all))));
  }

  /**
   * Takes the memory at once: 4 · (2 d_model + 3 d_q + 2 d_kv + 3 d_ffn) bytes a token.
   * @throws {RangeError} If a tensor of so many tokens exceeds a binding: says how many fit.
   */
  constructor(gpu: Gpu, config: Olmo2Config, maxTokens: number) {
    const { d_model, d_ffn, n_heads, n_kv_heads, d_head } = config;
    const [d_q, d_kv] = [n_heads * d_head, n_kv_heads * d_head];
    const most = Workspace.mostTokens(gpu, config);
    if (maxTokens > most) {
      throw new RangeError(
        `Cannot run ${maxTokens} tokens at once: their activations exceed the adapter's binding limit beyond ${most} tokens: run fewer at once (--pass-tokens), or a shorter prompt`,
      );
    }
    const f32 = (label: string, width: number) =>
      this.#owned.use(gpu.tensor(label, "f32", [maxTokens, width]));
    this.#gpu = gpu;
    this.maxTokens = maxTokens;
    this.#all = {
      ids: this.#owned.use(gpu.tensor("ids", "u32", [maxTokens])),
      places: this.#owned.use(gpu.tensor("places", "u32", [maxTokens, 2])),
      blocks: this.#owned.use(gpu.tensor("blocks", "u32", [maxTokens, 4])),
      resid: f32("resid", d_model),
      qkv: f32("qkv", d_q + 2 * d_kv),
      q: f32("q", d_q),
      z: f32("z", d_q),
      blockOut: f32("block_out", d_model),
      gateUp: f32("gate_up", 2 * d_ffn),
      ffn: f32("ffn", d_ffn),
    };
  }

  /**
   * Queues the batch's ids and places for the next pass, and plans its attention.
   * @throws {RangeError} If there are more tokens than the workspace holds.
   */
  load(batch: TokenBatch): void {
    const T = batch.ids.length;
    if (T > this.maxTokens) {
      throw new RangeError(
        `Cannot run ${T} tokens at once: the workspace holds ${this.maxTokens}`,
      );
    }
    const plan = planAttention(this.#gpu, batch.places);
    const entries = Object.entries(this.#all).map((
      [name, tensor]: [string, Tensor],
    ) => [name, tensor.rows(0, name === "blocks" ? plan.nBlocks : T)]);
    this.#attention = plan;
    this.#current = Object.fromEntries(entries) as TokenTensors;
    this.#current.ids.write(batch.ids);
    this.#current.places.write(batch.places);
    this.#current.blocks.write(plan.blocks);
  }

  /**
   * The tensors of the batch that was loaded last.
   * @throws {Error} If none was.
   */
  get tokens(): TokenTensors {
    return loaded(this.#current);
  }

  /**
   * How the batch that was loaded last attends.
   * @throws {Error} If none was.
   */
  get attention(): AttentionPlan {
    return loaded(this.#attention);
  }

  /** Frees the memory. */
  [Symbol.dispose](): void {
    this.#owned.dispose();
  }
}

function loaded<T>(value: T | undefined): T {
  if (value !== undefined) return value;
  throw new Error(
    "Cannot run the model: load a batch into the workspace first",
  );
}
