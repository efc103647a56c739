/**
 * Batches that a worker makes ahead of the trainer, so that reading and
 * decoding shards never keeps the GPU waiting.
 * @module
 */
import type {
  BatchOptions,
  BatchPosition,
  BatchSource,
  DroppedRows,
} from "./batch_source.ts";
import { BatchWorkerPort, type Opened } from "./batch_worker_port.ts";
import type { FolderAddress } from "./folder_address.ts";
import type { RowStatistics } from "./row_statistics.ts";

/** Batches that are ready or in the making at any time. */
export const BATCHES_AHEAD = 3;

/**
 * The batches of a residual folder, made in a worker: the same ones, with the same
 * positions, as `Batches` makes of it. Dispose it, or the worker keeps the process alive.
 */
export class PrefetchedBatches implements BatchSource {
  /** What errors call the data. */
  readonly name: string;
  /** Size of a vector. */
  readonly d_model: number;
  /** Of the vectors that are drawn from. */
  readonly statistics: RowStatistics;
  readonly #worker: BatchWorkerPort;
  #position: BatchPosition;
  #dropped: DroppedRows;
  #isAsked = false;

  private constructor(worker: BatchWorkerPort, opened: Opened) {
    this.#worker = worker;
    this.name = opened.name;
    this.d_model = opened.d_model;
    this.statistics = opened.statistics;
    this.#position = opened.position;
    this.#dropped = opened.dropped;
  }

  /**
   * Starts a worker on the residual folder at an address, with the permissions of this thread, and waits
   * until it has measured the data.
   * @throws {Error} As `ResidualFolder.open` and `Batches.open`, with the same class and message.
   */
  static async open(
    folder: FolderAddress,
    options: BatchOptions,
  ): Promise<PrefetchedBatches> {
    using owned = new DisposableStack();
    const worker = owned.use(new BatchWorkerPort());
    // Fields of a recipe that a worker does not need may not be copyable.
    const { batch, bufferRows, holdOut, seed } = options;
    const { maxNorm, skipTokens, skipBadRows, init } = options;
    worker.send({
      kind: "open",
      folder,
      options: {
        ...{ batch, bufferRows, holdOut, seed },
        ...(maxNorm !== undefined && { maxNorm }),
        ...(skipTokens !== undefined && { skipTokens }),
        ...(skipBadRows !== undefined && { skipBadRows }),
        ...(init !== undefined && { init }),
      },
    });
    const opened = await worker.receive("opened");
    const batches = new PrefetchedBatches(worker, opened);
    owned.move();
    return batches;
  }

  /** Where the next batch starts: after the last one that {@link next} gave. */
  get position(): BatchPosition {
    return this.#position;
  }

  /** What was left out of the data up to the last batch that {@link next} gave. */
  get dropped(): DroppedRows {
    return this.#dropped;
  }

  /** Takes the next batch, bits of bf16 `[batch, d_model]`, and has another one made. */
  async next(): Promise<Uint16Array<ArrayBuffer>> {
    // Not before the first is wanted: a run that resumes goes elsewhere first.
    const nMore = this.#isAsked ? 1 : BATCHES_AHEAD + 1;
    this.#isAsked = true;
    for (let i = 0; i < nMore; i++) this.#worker.send({ kind: "more" });
    const batch = await this.#worker.receive("batch");
    this.#position = batch.position;
    this.#dropped = batch.dropped;
    return batch.rows;
  }

  /**
   * Goes to a position of the same data, options and seed.
   * @throws {RangeError} If it is no position of this data.
   */
  async restore(position: BatchPosition): Promise<void> {
    try {
      await this.#goTo(position);
    } catch (error) {
      // What was made ahead is gone: back to where this stands.
      await this.#goTo(this.#position);
      throw error;
    }
  }

  async #goTo(position: BatchPosition): Promise<void> {
    const nWanted = this.#isAsked ? BATCHES_AHEAD : 0;
    await this.#worker.restart(position, nWanted);
    this.#position = position;
  }

  /** The vectors that are held out, in order: bits of bf16 `[n, d_model]`, a group at a time. */
  async *heldOut(): AsyncGenerator<Uint16Array<ArrayBuffer>> {
    for (let isFirst = true;; isFirst = false) {
      this.#worker.send({ kind: "heldOut", isFirst });
      const { rows } = await this.#worker.receive("heldOut");
      if (!rows) return;
      yield rows;
    }
  }

  /** Ends the worker; what is still waited for is refused. */
  [Symbol.dispose](): void {
    this.#worker[Symbol.dispose]();
  }
}
