import type { Gpu, Recorder, Tensor } from "../gpu/mod.ts";
import {
  blockCapacity,
  N_BLOCKS,
  sampleBounds,
} from "../kernels/sample_bounds.ts";
import { sampleCollect } from "../kernels/sample_collect.ts";
import { samplePeaks } from "../kernels/sample_peaks.ts";
import { samplePick } from "../kernels/sample_pick.ts";
import { sampleProbs } from "../kernels/sample_probs.ts";
import { sampleThreshold } from "../kernels/sample_threshold.ts";

/** One batch to draw from. */
export interface Draw {
  /** f32 `[R, vocab]`. */
  readonly logits: Tensor;
  /** u32 `[R, 8]`, see `samplingSettings`. */
  readonly settings: Tensor;
}

/**
 * Draws one token a row from logits, after temperature, top-k, top-p and min-p. A row is cut into blocks,
 * which a graphics card takes at once; filters then look at the few tokens that they may keep.
 */
export class TokenDraw implements Disposable {
  readonly #gpu: Gpu;
  readonly #maxRows: number;
  readonly #vocab: number;
  readonly #owned = new DisposableStack();
  readonly #peaks: Tensor; // u32 [maxRows, N_BLOCKS, 2]
  readonly #masses: Tensor; // f32 [maxRows, N_BLOCKS]
  readonly #rows: Tensor; // u32 [maxRows, 4]
  #filter: {
    readonly candidates: Tensor; // u32 [maxRows, capacity]
    readonly left: Tensor; // u32 [maxRows, capacity]
    readonly n_candidates: Tensor; // u32 [maxRows, N_BLOCKS]
  } | undefined;

  /** Takes little memory; more, twice that of the logits, when a filter is first used. */
  constructor(gpu: Gpu, vocab: number, maxRows: number) {
    this.#gpu = gpu;
    this.#vocab = vocab;
    this.#maxRows = maxRows;
    this.#peaks = this.#table("peaks", "u32", N_BLOCKS, 2);
    this.#masses = this.#table("masses", "f32", N_BLOCKS);
    this.#rows = this.#table("drawn rows", "u32", 4);
  }

  /** The most rows of which an adapter can hold logits and candidates in one binding each. */
  static mostRows(gpu: Gpu, vocab: number): number {
    const { maxStorageBufferBindingSize } = gpu.limits;
    return Math.floor(maxStorageBufferBindingSize / (4 * blockCapacity(vocab)));
  }

  /**
   * Records the draw.
   * @param tokens u32 `[R]`; 0xffffffff where logits are not finite.
   * @param isFiltered Whether a row has top-k, top-p or min-p.
   */
  run(rec: Recorder, draw: Draw, tokens: Tensor, isFiltered: boolean): void {
    const { logits, settings } = draw;
    const some = (tensor: Tensor) => tensor.rows(0, logits.nRows);
    const [peaks, masses] = [some(this.#peaks), some(this.#masses)];
    const rows = some(this.#rows);
    samplePeaks.run(rec, { logits, settings, peaks, masses });
    sampleBounds.run(rec, { settings, peaks, masses, rows }, {
      vocab: this.#vocab,
    });
    if (isFiltered) {
      const filter = this.#filterMemory();
      const candidates = some(filter.candidates);
      const n_candidates = some(filter.n_candidates);
      const left = some(filter.left);
      const found = { settings, rows, candidates, n_candidates };
      sampleCollect.run(rec, { logits, peaks, ...found });
      sampleThreshold.run(rec, { ...found, left, masses }, {
        vocab: this.#vocab,
      });
    }
    samplePick.run(rec, { logits, settings, rows, masses, tokens });
  }

  /**
   * Records what the last `run` drew with, for checks: the same logits and settings give f32
   * probabilities of their shape, 0 where a filter leaves a token out.
   */
  probs(rec: Recorder, { logits, settings }: Draw, probs: Tensor): void {
    const rows = this.#rows.rows(0, logits.nRows);
    sampleProbs.run(rec, { logits, settings, rows, probs });
  }

  #filterMemory() {
    const capacity = blockCapacity(this.#vocab);
    return this.#filter ??= {
      candidates: this.#table("candidates", "u32", capacity),
      left: this.#table("candidates left", "u32", capacity),
      n_candidates: this.#table("n_candidates", "u32", N_BLOCKS),
    };
  }

  #table(label: string, dtype: "f32" | "u32", ...sizes: number[]): Tensor {
    const shape = [this.#maxRows, ...sizes];
    return this.#owned.use(this.#gpu.tensor(label, dtype, shape));
  }

  /** Frees the memory. */
  [Symbol.dispose](): void {
    this.#owned.dispose();
  }
}
