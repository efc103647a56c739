/**
 * A ring of packed rows on the GPU, and batches that were drawn from it.
 * @module
 */
import type { Gpu, Recorder, Tensor } from "../gpu/mod.ts";
import { gatherBf16Rows } from "../kernels/gather_bf16_rows.ts";
import { packBf16 } from "../kernels/pack_bf16.ts";
import { unpackBatch } from "../kernels/unpack_batch.ts";
import type { BatchOnGpu } from "./batch_source.ts";
import type { RowRun } from "./live_passes.ts";

/** Rows that were put in one after the other, and leave in the same order. */
export class RowReservoir implements Disposable {
  /** All slots: bf16 `[capacity, d_model]`. */
  readonly rows: Tensor;
  readonly #gpu: Gpu;
  /** Slot of the oldest row. */
  #first = 0;
  #n = 0;

  /** Takes memory for rows; none is there yet. */
  constructor(gpu: Gpu, capacity: number, d_model: number) {
    this.#gpu = gpu;
    this.rows = gpu.tensor("reservoir", "bf16", [capacity, d_model]);
  }

  /** How many rows there are. */
  get n(): number {
    return this.#n;
  }

  /** Where a row lies in {@link rows}; the oldest is row 0. */
  slot(row: number): number {
    return (this.#first + row) % this.rows.nRows;
  }

  /** Submits copies of runs of rows behind the newest one. */
  push(from: Tensor, runs: readonly RowRun[]): void {
    const windows = [...this.rows.windows()];
    this.#gpu.record("fill the reservoir", (rec) => {
      for (const run of runs) {
        for (let done = 0; done < run.n;) {
          const slot = this.slot(this.#n);
          const { tensor, start, end } = windows.find(({ end }) => slot < end)!;
          const nRows = Math.min(run.n - done, end - slot);
          const fromRow = run.from + done;
          rec.copy(from, tensor, { fromRow, toRow: slot - start, nRows });
          done += nRows;
          this.#n += nRows;
        }
      }
    });
  }

  /** Forgets the oldest rows; they stay in their slots until others are put there. */
  drop(nRows: number): void {
    this.#first = this.slot(nRows);
    this.#n -= nRows;
  }

  /**
   * The rows from the first slot on, in windows of at most `most`, a multiple of 64.
   * For a reservoir of which nothing was dropped.
   */
  *parts(most: number): Generator<Tensor> {
    for (const { tensor, start, end } of this.rows.windows()) {
      const n = Math.min(end, this.#n) - start;
      for (let at = 0; at < n; at += most) {
        yield tensor.rows(at, Math.min(at + most, n));
      }
    }
  }

  /** Frees the memory. */
  [Symbol.dispose](): void {
    this.rows[Symbol.dispose]();
  }
}

/** Rows that were drawn from a reservoir: they are gathered when the batch is recorded. */
export class DrawnBatch implements BatchOnGpu, Disposable {
  readonly #gpu: Gpu;
  readonly #rows: Tensor; // bf16 [capacity, d_model]
  readonly #slots: Uint32Array<ArrayBuffer>; // [batch]
  #kept: Tensor | undefined; // bf16 [batch, d_model]
  #isOpen = true;

  /** A batch of the rows in some slots. */
  constructor(gpu: Gpu, rows: Tensor, slots: Uint32Array<ArrayBuffer>) {
    this.#gpu = gpu;
    this.#rows = rows;
    this.#slots = slots;
  }

  /** Whether it was not recorded yet. */
  get isOpen(): boolean {
    return this.#isOpen;
  }

  /**
   * Records what fills x, f32 `[batch, d_model]`, with the rows times the scale.
   * @throws {Error} If it was recorded before: other rows may be in its slots by now.
   */
  fill(rec: Recorder, x: Tensor, scale: number): void {
    if (!this.#isOpen) {
      throw new Error(
        "Cannot record a batch: expected one that was not recorded before: draw the next one",
      );
    }
    this.#isOpen = false;
    const kept = this.#kept;
    if (kept) {
      unpackBatch.run(rec, { rows: kept, x }, { scale });
      rec.afterSubmit(() => this[Symbol.dispose]());
    } else {
      this.#gather(rec, x, scale);
    }
  }

  /** Submits a copy of its rows, unless it was recorded: their slots are about to be filled anew. */
  keep(): void {
    if (!this.#isOpen || this.#kept) return;
    const shape = [this.#slots.length, this.#rows.shape[1]!];
    const packed = this.#gpu.tensor("kept batch", "bf16", shape);
    this.#kept = packed;
    this.#gpu.record("keep a batch", (rec) => {
      // From bf16 to f32 and back nothing is lost.
      const x = rec.scratch("batch to keep", "f32", shape);
      this.#gather(rec, x, 1);
      packBf16.run(rec, { x, packed });
    });
  }

  #gather(rec: Recorder, x: Tensor, scale: number): void {
    const slots = this.#slots;
    const index = this.#gpu.upload("slots", "u32", [slots.length], slots);
    gatherBf16Rows(rec, { rows: this.#rows, index, x }, { scale });
    rec.afterSubmit(() => index[Symbol.dispose]());
  }

  /** Frees the copy, if there is one. */
  [Symbol.dispose](): void {
    this.#kept?.[Symbol.dispose]();
  }
}
