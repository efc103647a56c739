/**
 * Reads a model's residual stream at one hook point, on the GPU.
 * @module
 */
import { hookPlace, type HookPoint } from "../core/hook_point.ts";
import { KvCache } from "../core/kv_cache.ts";
import type { ModelFolder } from "../core/model_folder.ts";
import { Olmo2, Workspace } from "../core/olmo2.ts";
import { wholeSequences } from "../core/token_batch.ts";
import type { Gpu, Recorder, Tensor } from "../gpu/mod.ts";
import { packBf16 } from "../kernels/pack_bf16.ts";

/** What to read, and how much at once. */
export interface ReaderOptions {
  /** Where to read. */
  readonly hookPoint: HookPoint;
  /** Most tokens of one pass. */
  readonly maxTokens: number;
}

/** A model up to the hook's block, without its head, and the memory of a pass. */
export class ResidualReader implements Disposable {
  /** The model's files. */
  readonly model: ModelFolder;
  /** Where it reads. */
  readonly hookPoint: HookPoint;
  /** Most tokens of one pass. */
  readonly maxTokens: number;
  readonly #gpu: Gpu;
  readonly #olmo2: Olmo2;
  readonly #work: Workspace;
  readonly #cache: KvCache;
  readonly #normed: Tensor | undefined; // f32 [maxTokens, d_model]
  readonly #packed: Tensor; // bf16 [maxTokens, d_model]
  readonly #owned: DisposableStack;
  #nTokens = 0;

  private constructor(
    gpu: Gpu,
    model: ModelFolder,
    olmo2: Olmo2,
    { hookPoint, maxTokens }: ReaderOptions,
  ) {
    const { config } = model;
    const { site, layer } = hookPlace(hookPoint);
    using owned = new DisposableStack();
    this.model = model;
    this.hookPoint = hookPoint;
    this.maxTokens = maxTokens;
    this.#gpu = gpu;
    this.#olmo2 = owned.use(olmo2);
    this.#work = owned.use(new Workspace(gpu, config, maxTokens));
    this.#cache = owned.use(
      new KvCache(gpu, config, {
        nRows: 1,
        nLayers: layer + 1,
        // Nothing follows a pass, so the blocks need not keep their keys.
        isShared: true,
      }),
    );
    const shape = [maxTokens, config.d_model];
    this.#normed = site === "final_norm"
      ? owned.use(gpu.tensor("final_norm", "f32", shape))
      : undefined;
    this.#packed = owned.use(gpu.tensor("packed", "bf16", shape));
    this.#owned = owned.move();
  }

  /**
   * Loads the blocks that are needed.
   * @throws {TypeError} If a tensor has the wrong shape or type, naming file and tensor.
   */
  static async load(
    gpu: Gpu,
    model: ModelFolder,
    options: ReaderOptions,
  ): Promise<ResidualReader> {
    const olmo2 = await Olmo2.load(gpu, model.checkpoint, model.config, {
      nLayers: hookPlace(options.hookPoint).layer + 1,
      withHead: false,
      quantize: model.quantize,
    });
    return new ResidualReader(gpu, model, olmo2, options);
  }

  /**
   * Submits a pass over whole sequences; the host is free until {@link rows}.
   * @param use Records what becomes of the rows, f32 `[T, d_model]`, instead of packing them for {@link rows}.
   * @throws {RangeError} If there are more than `maxTokens` tokens, or a token or length that the model does not have.
   */
  submit(
    sequences: readonly ArrayLike<number>[],
    use?: (rec: Recorder, rows: Tensor) => void,
  ): void {
    const batch = wholeSequences(this.model.config, sequences);
    const T = batch.ids.length;
    this.#work.load(batch);
    this.#cache.fit(sequences.map((ids) => ids.length));
    this.#nTokens = T;
    this.#gpu.record(`read ${this.hookPoint}`, (rec) => {
      const resid = this.#olmo2.forward(rec, this.#work, this.#cache);
      const y = this.#normed?.rows(0, T);
      if (y) this.#olmo2.finalNorm(rec, resid, y);
      const x = y ?? resid;
      if (use) use(rec, x);
      else packBf16.run(rec, { x, packed: this.#packed.rows(0, T) });
    });
  }

  /**
   * The rows of the pass that was submitted last: bits of bf16 `[T, d_model]`, tokens in its order. The copy is on its
   * way when this returns, so that the next pass can be submitted before it is awaited.
   */
  async rows(): Promise<Uint16Array<ArrayBuffer>> {
    const packed = this.#packed.rows(0, this.#nTokens);
    const bytes = await this.#gpu.readBytes(packed);
    return new Uint16Array(bytes.buffer, 0, bytes.length / 2);
  }

  /** Frees the memory. */
  [Symbol.dispose](): void {
    this.#owned.dispose();
  }
}
