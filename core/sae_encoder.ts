/**
 * The encoder of an SAE with the memory that it works in, for whichever architecture.
 * @module
 */
import type { Dtype, Recorder, Tensor } from "../gpu/mod.ts";
import {
  keepTopK,
  selectTopK,
  type TopKTensors,
  topKTensors,
} from "../kernels/sae_topk.ts";
import { encodeWindow, type FeatureWindow, type Sae } from "./sae.ts";

/** Records what is done with the activations of a window of features, f32 `[T, window]`; they are gone after it. */
export type TakeActivations = (acts: Tensor, window: FeatureWindow) => void;

/**
 * Encodes up to `maxTokens` tokens at once. The windows of relu and jumprelu take turns in one tensor; topk ranks over all
 * features and holds `[maxTokens, d_sae]`.
 */
export class SaeEncoder implements Disposable {
  /** The windows in which activations come, in order. */
  readonly windows: readonly FeatureWindow[];
  readonly #sae: Sae;
  readonly #owned: DisposableStack;
  readonly #acts: readonly Tensor[]; // f32 [maxTokens · window], one for each window or one for all
  readonly #selection: TopKTensors | undefined;

  /**
   * Takes the memory for `maxTokens` tokens.
   * @throws {RangeError} As {@link Sae.windows}, or if there is no memory for the activations.
   */
  constructor(sae: Sae, maxTokens: number) {
    const { gpu, architecture } = sae;
    using owned = new DisposableStack();
    const tensor = (
      label: string,
      dtype: Dtype,
      shape: readonly number[],
    ): Tensor => owned.use(gpu.tensor(label, dtype, shape));
    this.#sae = sae;
    this.windows = sae.windows(maxTokens);
    const sizes = this.windows.map(({ start, end }) => end - start);
    const held = architecture === "topk" ? sizes : [Math.max(...sizes)];
    this.#acts = held.map((size) => tensor("acts", "f32", [maxTokens * size]));
    this.#selection = architecture === "topk"
      ? topKTensors(tensor, {
        T: maxTokens,
        windows: sizes,
        k: sae.k!,
        isBatch: false,
      })
      : undefined;
    this.#owned = owned.move();
  }

  /** Records the activations of x, f32 `[T, d_model]`, and calls `take` for each window, from feature 0 on. */
  encode(rec: Recorder, x: Tensor, take: TakeActivations): void {
    const T = x.nRows;
    const parts = this.windows.map((window, w) => {
      const size = window.end - window.start;
      const memory = this.#acts[w] ?? this.#acts[0]!;
      return { window, acts: memory.rows(0, T * size).reshape([T, size]) };
    });
    if (!this.#selection) {
      for (const { window, acts } of parts) {
        encodeWindow(rec, this.#sae, x, acts, window);
        take(acts, window);
      }
      return;
    }
    const selection = this.#selection;
    for (const { window, acts } of parts) {
      encodeWindow(rec, this.#sae, x, acts, window);
    }
    selectTopK(rec, parts, selection, { k: this.#sae.k! });
    for (const { window, acts } of parts) {
      keepTopK(rec, acts, selection);
      take(acts, window);
    }
  }

  /** Frees the memory. */
  [Symbol.dispose](): void {
    this.#owned.dispose();
  }
}
