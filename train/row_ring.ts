/**
 * Rows that stay on the GPU: a ring of bf16 rows from which batches are picked.
 * @module
 */
import type { Gpu, Recorder, Tensor } from "../gpu/mod.ts";
import { gatherWords } from "../kernels/gather_words.ts";
import { unpackRows } from "../kernels/unpack_rows.ts";
import type { BatchOnGpu } from "./batch_source.ts";

/** Words of a row of bf16, which starts at a word so that rows can be copied one by one. */
export function rowWords(d_model: number): number {
  return Math.ceil(d_model / 2);
}

/** Memory of a batch that was picked. */
interface Slot {
  readonly rows: Tensor; // u32 [batch]
  readonly packed: Tensor; // u32 [batch, words]
}

/** A ring of rows; owns it, and the memory of batches that are picked. */
export class RowRing implements Disposable {
  /** Rows that there is room for. */
  readonly capacity: number;
  readonly #gpu: Gpu;
  readonly #batch: number;
  readonly #ring: Tensor; // u32 [capacity, words], bf16 pairs
  readonly #idle: Slot[] = [];
  readonly #owned = new DisposableStack();

  /** Room for `capacity` rows; batches have `batch` rows. */
  constructor(
    gpu: Gpu,
    { capacity, batch, d_model }: {
      readonly capacity: number;
      readonly batch: number;
      readonly d_model: number;
    },
  ) {
    this.#gpu = gpu;
    this.#batch = batch;
    this.capacity = capacity;
    this.#ring = this.#owned.use(
      gpu.tensor("reservoir", "u32", [capacity, rowWords(d_model)]),
    );
  }

  /** Records a copy of the first n rows of `packed`, u32 `[…, words]`, to place `at` of the ring and on. */
  store(rec: Recorder, packed: Tensor, n: number, at: number): void {
    for (const { window, row, from, nRows } of this.#pieces(at, n)) {
      rec.copy(packed, window, { fromRow: from, toRow: row, nRows });
    }
  }

  /** Records a copy of n rows from place `at` of the ring on to the start of `packed`. */
  load(rec: Recorder, packed: Tensor, n: number, at: number): void {
    for (const { window, row, from, nRows } of this.#pieces(at, n)) {
      rec.copy(window, packed, { fromRow: row, toRow: from, nRows });
    }
  }

  /**
   * Picks a batch, now: what becomes of the ring later does not change it. It holds memory until it is filled in.
   * @param places Places in the ring, `[batch]`.
   */
  pick(places: Uint32Array<ArrayBuffer>): BatchOnGpu {
    const slot = this.#idle.pop() ?? this.#newSlot();
    const { rows, packed } = slot;
    rows.write(places);
    this.#gpu.record("pick a batch", (rec) => {
      for (const { tensor: source, start: first } of this.#ring.windows()) {
        gatherWords.run(rec, { source, rows, picked: packed }, { first });
      }
    });
    let isUsed = false;
    return {
      fill: (rec, x, scale): void => {
        if (isUsed) {
          throw new Error(
            "Cannot fill in a batch: expected one that was not used yet: got one whose memory serves another: take the next",
          );
        }
        isUsed = true;
        unpackRows.run(rec, { packed, x }, { scale });
        // A later pick writes to it after these commands have run.
        rec.afterSubmit(() => this.#idle.push(slot));
      },
    };
  }

  /** Frees the memory. */
  [Symbol.dispose](): void {
    this.#owned.dispose();
  }

  #newSlot(): Slot {
    const tensor = (label: string, shape: number[]): Tensor =>
      this.#owned.use(this.#gpu.tensor(label, "u32", shape));
    const words = this.#ring.shape[1]!;
    return {
      rows: tensor("rows of a batch", [this.#batch]),
      packed: tensor("a batch", [this.#batch, words]),
    };
  }

  /** n rows from place `at` on, in runs that lie in one window. */
  *#pieces(
    at: number,
    n: number,
  ): Generator<{ window: Tensor; row: number; from: number; nRows: number }> {
    for (let from = 0; from < n;) {
      const place = (at + from) % this.capacity;
      const { tensor: window, start, end } = this.#windowAt(place);
      const nRows = Math.min(end - place, n - from);
      yield { window, row: place - start, from, nRows };
      from += nRows;
    }
  }

  #windowAt(place: number): { tensor: Tensor; start: number; end: number } {
    for (const window of this.#ring.windows()) {
      if (place < window.end) return window;
    }
    throw new RangeError(
      `Cannot find place ${place} of a reservoir of ${this.capacity} rows`,
    );
  }
}
