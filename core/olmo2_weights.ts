import type { Dtype, Gpu, Tensor } from "../gpu/mod.ts";
import type { Olmo2Config } from "./olmo2_config.ts";
import type { Checkpoint } from "./safetensors.ts";

/** Weights of one block. Matrices are `[out, in]` in the file's type; norms are f32. */
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

/** What of a checkpoint to put on the GPU. */
export interface LoadOptions {
  /** Blocks to load, from the first; all when absent. */
  readonly nLayers?: number;
  /** Whether logits will be wanted; true when absent. */
  readonly withHead?: boolean;
  /**
   * Precision of the rotary frequencies: f32 as `from_pretrained` computes them, the default, or
   * bf16 as a Hugging Face model has them once `model.to(torch.bfloat16)` has rounded its buffers.
   */
  readonly rope?: "f32" | "bf16";
  /** Called as bytes arrive on the GPU. */
  readonly onProgress?: (bytesDone: number, bytesTotal: number) => void;
}

/** Bytes that travel from file to GPU at once. */
const PIECE_BYTES = 16 * 2 ** 20;

const GPU_TYPES: Readonly<Record<string, Dtype>> = {
  F32: "f32",
  BF16: "bf16",
  F16: "f16",
};

/** Puts a checkpoint's tensors on the GPU, with names and shapes checked. */
export class WeightLoader {
  readonly #gpu: Gpu;
  readonly #checkpoint: Checkpoint;
  readonly #owned: DisposableStack;
  readonly #onProgress: NonNullable<LoadOptions["onProgress"]>;
  #bytesDone = 0;
  #bytesTotal = 0;

  /** Tensors go to `owned`, which frees them. */
  constructor(
    gpu: Gpu,
    checkpoint: Checkpoint,
    owned: DisposableStack,
    options: LoadOptions,
  ) {
    this.#gpu = gpu;
    this.#checkpoint = checkpoint;
    this.#owned = owned;
    this.#onProgress = options.onProgress ?? (() => {});
  }

  /**
   * Checks that every tensor is there with the shape and a float type.
   * @throws {TypeError} If one is not, naming file, tensor, and both shapes.
   */
  expect(
    shapes: Iterable<readonly [name: string, shape: readonly number[]]>,
  ): void {
    for (const [name, shape] of shapes) {
      const info = this.#checkpoint.info(name);
      if (!(info.dtype in GPU_TYPES) || info.shape.join() !== shape.join()) {
        throw new TypeError(
          `Cannot load "${
            this.#checkpoint.fileOf(name)
          }": tensor "${name}" must be F32, BF16 or F16 [${
            shape.join(", ")
          }], as config.json tells: got ${info.dtype} [${
            info.shape.join(", ")
          }]: check that the files of this folder belong together`,
        );
      }
      this.#bytesTotal += info.end - info.start;
    }
  }

  /**
   * Matrices with equal row lengths as one, rows one after the other, in their packed type.
   * @throws {TypeError} If they have different types.
   */
  async matrix(label: string, ...names: string[]): Promise<Tensor> {
    const infos = names.map((name) => this.#checkpoint.info(name));
    const dtype = infos[0]!.dtype;
    const odd = infos.find((info) => info.dtype !== dtype);
    if (odd) {
      throw new TypeError(
        `Cannot load "${
          this.#checkpoint.fileOf(odd.name)
        }": tensor "${odd.name}" must be ${dtype} like "${
          names[0]
        }": got ${odd.dtype}: check that the files of this folder belong together`,
      );
    }
    const nRows = infos.reduce((sum, info) => sum + info.shape[0]!, 0);
    const tensor = this.#gpu.tensor(label, GPU_TYPES[dtype]!, [
      nRows,
      infos[0]!.shape[1]!,
    ]);
    this.#owned.use(tensor);
    // Pieces of an even number of rows start at whole words.
    const rowsAtOnce = Math.max(
      2,
      2 * Math.floor(PIECE_BYTES / tensor.rowBytes / 2),
    );
    let row = 0;
    for (const info of infos) {
      for (let start = 0; start < info.shape[0]!; start += rowsAtOnce) {
        const end = Math.min(start + rowsAtOnce, info.shape[0]!);
        const bytes = await this.#checkpoint.bytes(info.name, start, end);
        tensor.write(bytes, row);
        row += end - start;
        this.#count(bytes.byteLength);
      }
    }
    return tensor;
  }

  /** Vectors one after the other, widened to f32. */
  async vector(label: string, ...names: string[]): Promise<Tensor> {
    const parts = [];
    for (const name of names) {
      parts.push(await this.#checkpoint.floats(name));
      const { start, end } = this.#checkpoint.info(name);
      this.#count(end - start);
    }
    const values = new Float32Array(
      parts.reduce((sum, part) => sum + part.length, 0),
    );
    let at = 0;
    for (const part of parts) {
      values.set(part, at);
      at += part.length;
    }
    return this.#owned.use(this.#gpu.floats(label, [values.length], values));
  }

  #count(bytes: number): void {
    this.#bytesDone += bytes;
    this.#onProgress(this.#bytesDone, this.#bytesTotal);
  }
}

/** Names and shapes of block `l`'s tensors, as Hugging Face names them. */
export function layerShapes(
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
