/**
 * Batches straight from a model: documents → forward up to the hook's block →
 * rows that stay on the GPU. Nothing is stored; a run that goes on runs the model again.
 * @module
 */
import { Rng } from "../core/rng.ts";
import type { Gpu } from "../gpu/mod.ts";
import type {
  BatchOnGpu,
  BatchOptions,
  BatchPosition,
  BatchSource,
  DroppedRows,
} from "./batch_source.ts";
import {
  holdOutRows,
  type LivePass,
  type LiveSource,
  trainingPasses,
  type TrainStart,
} from "./live_passes.ts";
import { DrawnBatch, RowReservoir } from "./row_reservoir.ts";
import { NONE_DROPPED } from "./row_filter.ts";
import { RowMeasure, type RowStatistics } from "./row_statistics.ts";

/** Where rows come from, and how batches are drawn of them. */
export interface LiveOptions
  extends LiveSource, Omit<BatchOptions, keyof LiveSource> {
  /** The device that the reader's model is on. */
  readonly gpu: Gpu;
}

/** Rows that are read back at once; row windows start at multiples of 64. */
const ROWS_PER_READ = 4096;

/**
 * Draws batches with replacement from a reservoir of rows on the GPU. The model
 * fills it before the first batch. Then, each time as many rows were drawn as the
 * oldest pass has, the next pass takes its place, epoch after epoch of the text,
 * so that an epoch of batches draws each row once on average. A text that fits
 * into the reservoir stays there.
 */
export class LiveBatches implements BatchSource {
  /** What errors call the text. */
  readonly name: string;
  readonly #options: LiveOptions;
  readonly #reservoir: RowReservoir;
  readonly #draws: Rng;
  readonly #start: TrainStart;
  readonly #heldOut: readonly Uint16Array<ArrayBuffer>[];
  #statistics: RowStatistics | undefined;
  /** Passes after those in the reservoir, without end. */
  #passes: AsyncGenerator<LivePass, undefined>;
  /** The first of them, once it was looked at. */
  #ahead: LivePass | undefined;
  /** Passes in the reservoir, oldest first. */
  readonly #loaded: Pick<LivePass, "first" | "n">[] = [];
  /** Batches whose commands may not have been recorded yet. */
  #open: DrawnBatch[] = [];
  #fits = false;
  #nSkipped = 0;
  /** First document of the last pass of which it was counted what is left out. */
  #counted = -1;
  #firstGroup = 0;
  #nDrawn = 0;

  private constructor(
    options: LiveOptions,
    start: TrainStart,
    heldOut: readonly Uint16Array<ArrayBuffer>[],
  ) {
    const { gpu, reader, bufferRows, seed } = options;
    this.#options = options;
    this.name = options.name;
    this.#start = start;
    this.#heldOut = heldOut;
    this.#draws = new Rng(seed).fork("batches");
    this.#passes = trainingPasses(options, start, start.document);
    // One pass is there at least, as large as it may be.
    const capacity = Math.max(bufferRows, reader.maxTokens);
    this.#reservoir = new RowReservoir(gpu, capacity, this.d_model);
  }

  /**
   * Runs the model on what is held out and on what fills the reservoir, and measures the latter.
   * @throws {RangeError} If too few rows are left to draw from, or their mean norm is not a positive number,
   * or rows shall be left out for what is in them: they are not looked at one by one.
   */
  static async open(options: LiveOptions): Promise<LiveBatches> {
    const { name, maxNorm = 0, skipBadRows = false } = options;
    if (maxNorm > 0 || skipBadRows) {
      throw new RangeError(
        `Cannot train on "${name}" without storing vectors: expected maxNorm 0 and skipBadRows false: got ${maxNorm} and ${skipBadRows}: set them so, or collect first`,
      );
    }
    const { start, heldOut } = await holdOutRows(options);
    using owned = new DisposableStack();
    const batches = owned.use(new LiveBatches(options, start, heldOut));
    await batches.#fill();
    batches.#statistics = await batches.#measure();
    owned.move();
    return batches;
  }

  /** Size of a row. */
  get d_model(): number {
    return this.#options.reader.model.config.d_model;
  }

  /** Of the rows that filled the reservoir first. */
  get statistics(): RowStatistics {
    return this.#statistics!;
  }

  /** What was left out of the documents that went through the model for training. */
  get dropped(): DroppedRows {
    return { ...NONE_DROPPED, skippedTokens: this.#nSkipped };
  }

  /** Draws the next batch. Record it: until then it keeps its rows, in memory of its own if the model runs. */
  async next(): Promise<BatchOnGpu> {
    await this.#fill();
    const { gpu, batch } = this.#options;
    const reservoir = this.#reservoir;
    const index = Uint32Array.from(
      { length: batch },
      () => reservoir.slot(this.#draws.below(reservoir.n)),
    );
    const drawn = new DrawnBatch(gpu, reservoir.rows, index);
    this.#open = [...this.#open.filter(({ isOpen }) => isOpen), drawn];
    if (!this.#fits) this.#slide(batch);
    return drawn;
  }

  /** Where the next batch starts. */
  get position(): BatchPosition {
    const { first } = this.#loaded[0] ?? this.#ahead!;
    return {
      rng: this.#draws.state,
      firstGroup: this.#firstGroup,
      nDrawn: this.#nDrawn,
      document: first,
    };
  }

  /**
   * Goes to a position of the same text, model, options and seed, and fills the reservoir as it was there;
   * the next batch is the one that followed.
   * @throws {RangeError} If it is no position of this text.
   */
  async restore(position: BatchPosition): Promise<void> {
    const { rng, firstGroup, nDrawn } = position;
    const isPlace = [firstGroup, nDrawn].every((n) =>
      Number.isSafeInteger(n) && n >= 0
    );
    const isOfFit = firstGroup === 0 && nDrawn === 0;
    if (!isPlace || (this.#fits && !isOfFit)) this.#refuse(position);
    if (firstGroup !== this.#firstGroup) await this.#goTo(position);
    this.#draws.state = rng;
    this.#nDrawn = nDrawn;
    await this.#fill();
  }

  /** The rows that are held out, in order: bits of bf16 `[n, d_model]`, a pass at a time. */
  async *heldOut(): AsyncGenerator<Uint16Array<ArrayBuffer>> {
    yield* this.#heldOut;
  }

  /** The next pass, which stays the next one. */
  async #peek(): Promise<LivePass> {
    this.#ahead ??= (await this.#passes.next()).value;
    if (this.#ahead) return this.#ahead;
    throw new RangeError(
      `Cannot go on with "${this.#options.name}": expected the documents that were there before: got none: do not change the text while it is read`,
    );
  }

  /** Loads passes as long as they fit, and looks at the one after them. */
  async #fill(): Promise<void> {
    const loaded = this.#loaded;
    while (!this.#fits) {
      const pass = await this.#peek();
      const isEmpty = loaded.length === 0;
      if (isEmpty && this.#nDrawn >= pass.n) {
        // A batch that drew more than the whole reservoir has.
        this.#nDrawn -= pass.n;
        this.#firstGroup++;
      } else if (
        !isEmpty && this.#firstGroup === 0 &&
        pass.first === this.#start.document
      ) {
        // The text starts over, and its start is still here.
        this.#fits = true;
        await this.#passes.return(undefined);
      } else if (
        !isEmpty && this.#reservoir.n + pass.n > this.#options.bufferRows
      ) {
        return;
      } else {
        this.#load(pass);
      }
      this.#ahead = undefined;
    }
  }

  /** Runs the model on a pass, and puts its rows behind those in the reservoir. */
  #load(pass: LivePass): void {
    const { reader } = this.#options;
    for (const batch of this.#open) batch.keep();
    reader.submit(pass.sequences);
    this.#reservoir.push(reader.packed(), pass.runs);
    this.#loaded.push({ first: pass.first, n: pass.n });
    if (pass.first <= this.#counted) return;
    this.#counted = pass.first;
    this.#nSkipped += pass.nSkipped;
  }

  #slide(nDrawn: number): void {
    this.#nDrawn += nDrawn;
    while (this.#loaded.length > 0 && this.#nDrawn >= this.#loaded[0]!.n) {
      const { n } = this.#loaded.shift()!;
      this.#reservoir.drop(n);
      this.#nDrawn -= n;
      this.#firstGroup++;
    }
  }

  /** Empties the reservoir, and makes a position's oldest pass the next one. */
  async #goTo(position: BatchPosition): Promise<void> {
    const { firstGroup, document } = position;
    const start = this.#start.document;
    await this.#passes.return(undefined);
    this.#passes = trainingPasses(
      this.#options,
      this.#start,
      document ?? start,
    );
    this.#ahead = undefined;
    this.#reservoir.drop(this.#reservoir.n);
    this.#loaded.length = 0;
    this.#firstGroup = firstGroup;
    if (document !== undefined) {
      const isThere = document >= start &&
        (await this.#peek()).first === document;
      if (!isThere) this.#refuse(position);
      return;
    }
    let left = firstGroup;
    for (let place = 0;; place++, left--) {
      const { first } = await this.#peek();
      // Epochs have the same passes: whole ones need not be read.
      if (place > 0 && first === start) left %= place;
      if (left === 0) return;
      this.#ahead = undefined;
    }
  }

  #refuse({ firstGroup, nDrawn, document }: BatchPosition): never {
    throw new RangeError(
      `Cannot resume the batches of "${this.#options.name}": expected a position of this text: got pass ${firstGroup}, ${nDrawn} drawn, document ${document}`,
    );
  }

  /** Measures the rows in the reservoir. */
  async #measure(): Promise<RowStatistics> {
    const { gpu, name, batch } = this.#options;
    const { d_model } = this;
    const { n } = this.#reservoir;
    if (n < batch) {
      throw new RangeError(
        `Cannot train on "${name}": expected at least the ${batch} vectors of a batch to draw from: got ${n}: take a longer text, a larger buffer or smaller batches`,
      );
    }
    const { init } = this.#options;
    const measure = new RowMeasure(d_model, { init, nMost: n });
    for (const part of this.#reservoir.parts(ROWS_PER_READ)) {
      const bytes = await gpu.readBytes(part);
      measure.add(new Uint16Array(bytes.buffer, 0, part.nRows * d_model));
    }
    return measure.finish(name);
  }

  /** Frees the reservoir, and what batches that were not recorded keep. */
  [Symbol.dispose](): void {
    for (const batch of this.#open) batch[Symbol.dispose]();
    this.#reservoir[Symbol.dispose]();
  }
}
