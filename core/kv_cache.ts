import type { Gpu, Tensor } from "../gpu/mod.ts";
import type { Olmo2Config } from "./olmo2_config.ts";

/** How large a {@link KvCache} is. */
export interface KvCacheOptions {
  /** Places for tokens, over all sequences. */
  readonly nSlots: number;
  /** Blocks that the cache serves. */
  readonly nLayers: number;
  /**
   * Whether the blocks use the same memory one after the other: enough for a pass
   * over whole sequences, after which nothing is generated.
   */
  readonly isShared: boolean;
}

/** Keys and values of past tokens, turned and normed, f32. */
export class KvCache implements Disposable {
  /** Places for tokens, over all sequences. */
  readonly nSlots: number;
  readonly #owned = new DisposableStack();
  readonly #K: Tensor[] = []; // per layer, f32 [nSlots, n_kv_heads * d_head]
  readonly #V: Tensor[] = [];

  /**
   * Takes the memory at once.
   * @throws {RangeError} If one layer's keys exceed the adapter's binding limit.
   */
  constructor(gpu: Gpu, config: Olmo2Config, options: KvCacheOptions) {
    this.nSlots = options.nSlots;
    const shape = [options.nSlots, config.n_kv_heads * config.d_head];
    for (let l = 0; l < (options.isShared ? 1 : options.nLayers); l++) {
      this.#K.push(this.#owned.use(gpu.tensor(`cache.K.${l}`, "f32", shape)));
      this.#V.push(this.#owned.use(gpu.tensor(`cache.V.${l}`, "f32", shape)));
    }
    const large = this.#K.find((tensor) => !tensor.isBindable);
    if (large) {
      this.#owned.dispose();
      throw new RangeError(
        `Cannot cache ${options.nSlots} tokens: ${large} exceeds the adapter's binding limit of ${gpu.limits.maxStorageBufferBindingSize} bytes: use fewer sequences or a shorter context`,
      );
    }
  }

  /** Keys of block `layer`, f32 `[nSlots, n_kv_heads · d_head]`. */
  keys(layer: number): Tensor {
    return this.#K[Math.min(layer, this.#K.length - 1)]!;
  }

  /** Values of block `layer`, f32 `[nSlots, n_kv_heads · d_head]`. */
  values(layer: number): Tensor {
    return this.#V[Math.min(layer, this.#V.length - 1)]!;
  }

  /** Frees the memory. */
  [Symbol.dispose](): void {
    this.#owned.dispose();
  }
}
