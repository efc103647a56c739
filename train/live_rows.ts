/**
 * Batches straight from a model: residual vectors that never leave the GPU,
 * mixed over as many documents as a reservoir holds.
 * @module
 */
import { Rng } from "../core/rng.ts";
import { comparePositions, type TextPosition } from "../core/token_contexts.ts";
import type { Gpu, Tensor } from "../gpu/mod.ts";
import type {
  BatchOnGpu,
  BatchOptions,
  BatchPosition,
  BatchSource,
  DroppedRows,
} from "./batch_source.ts";
import { checkEnough, noneLeft } from "./batches.ts";
import { TEXT_START } from "./context_passes.ts";
import { HeldRows, unpadded } from "./held_rows.ts";
import {
  type ModelPass,
  ModelPasses,
  type ModelPassesOptions,
} from "./model_passes.ts";
import { addDropped, NONE_DROPPED, RowFilter } from "./row_filter.ts";
import { RowRing, rowWords } from "./row_ring.ts";
import { RowMeasure, type RowStatistics } from "./row_statistics.ts";

/** Options of {@link LiveRows.open}: the text and its model, and how batches are drawn. */
export interface LiveRowsOptions extends ModelPassesOptions {
  /** What batches have and leave out. */
  readonly batches: BatchOptions;
}

/** A pass whose rows are in the reservoir. */
interface BufferedPass extends Pick<ModelPass, "start" | "n"> {
  /** Place of its first row. */
  readonly at: number;
  readonly norms: Float32Array;
  /** Its rows that are drawn from. */
  kept: Uint32Array;
}

/** Passes without any row to draw from that may follow one another. */
const MOST_EMPTY = 1000;

/**
 * Draws batches with replacement from a reservoir of passes. A text whose vectors fit into it
 * is run once. Otherwise passes go through it in the order of the text, and a text that ends starts over:
 * each time as many vectors were drawn as the oldest pass has, it makes room for those that follow.
 * Vectors that are held out are those of the text's first documents, and lie on the host.
 *
 * Statistics are of the vectors that fill the reservoir first, read back once; `statistics.n` counts those.
 * A position names the first token in the reservoir, so that {@link restore} runs the model again
 * over what was in it.
 */
export class LiveRows implements BatchSource {
  /** What errors call the text. */
  readonly name: string;
  /** Size of a vector. */
  readonly d_model: number;
  readonly #gpu: Gpu;
  readonly #options: LiveRowsOptions;
  readonly #filter: RowFilter;
  readonly #passes: ModelPasses;
  readonly #reservoir: RowRing;
  readonly #draws: Rng;
  readonly #owned = new DisposableStack();
  readonly #buffer: BufferedPass[] = [];
  #held: HeldRows | undefined;
  #statistics: RowStatistics | undefined;
  /** The pass that is computed and waits for room. */
  #ahead: ModelPass | undefined;
  #fits = false;
  #dropped = NONE_DROPPED;
  /** What lies before it is counted among what was left out. */
  #counted = TEXT_START;
  #nDrawn = 0;
  #firstPass = 0;
  /** First token of the oldest pass. */
  #oldest = TEXT_START;

  private constructor(options: LiveRowsOptions) {
    const { gpu, reader, batches, text } = options;
    const { d_model } = reader.model.config;
    this.name = text;
    this.d_model = d_model;
    this.#gpu = gpu;
    this.#options = options;
    this.#filter = new RowFilter(batches);
    using owned = new DisposableStack();
    this.#passes = owned.use(new ModelPasses(options, this.#filter));
    this.#reservoir = owned.use(
      new RowRing(gpu, {
        // The rows of one pass are there whatever their number.
        capacity: Math.max(batches.bufferRows, reader.maxTokens),
        batch: batches.batch,
        d_model,
      }),
    );
    this.#draws = new Rng(batches.seed).fork("batches");
    this.#owned = owned.move();
  }

  /**
   * Runs the model over as many documents as the reservoir holds, and measures their vectors.
   * The model is borrowed: dispose it after this.
   * @throws {RangeError} If a vector is not finite (names document and position), or too few are left to draw from.
   */
  static async open(options: LiveRowsOptions): Promise<LiveRows> {
    const live = new LiveRows(options);
    try {
      await live.#start();
      return live;
    } catch (error) {
      live[Symbol.dispose]();
      throw error;
    }
  }

  /** Bytes of GPU memory that it takes beside the reader. */
  static bytes(
    { bufferRows, batch }: Pick<BatchOptions, "bufferRows" | "batch">,
    { maxTokens, d_model }: {
      readonly maxTokens: number;
      readonly d_model: number;
    },
  ): number {
    const nRows = Math.max(bufferRows, maxTokens) + maxTokens + batch;
    return 4 * nRows * rowWords(d_model) + 8 * maxTokens + 4 * batch;
  }

  /** Of the vectors that filled the reservoir first. */
  get statistics(): RowStatistics {
    return this.#statistics!;
  }

  /** What was left out of the documents that were read, those that a resumed run did not see again excepted. */
  get dropped(): DroppedRows {
    return this.#dropped;
  }

  /** Where the next batch starts. */
  get position(): BatchPosition {
    return {
      rng: this.#draws.state,
      firstGroup: this.#firstPass,
      nDrawn: this.#nDrawn,
      ...this.#oldest,
    };
  }

  /** Draws the next batch; its rows are picked now, on the GPU. */
  async next(): Promise<BatchOnGpu> {
    await this.#fill();
    const { batch } = this.#options.batches;
    const ends: number[] = [];
    let total = 0;
    for (const { kept } of this.#buffer) ends.push(total += kept.length);
    const places = new Uint32Array(batch);
    for (let b = 0; b < batch; b++) {
      const row = this.#draws.below(total);
      const p = firstAbove(ends, row);
      const { kept, at } = this.#buffer[p]!;
      const offset = kept[row - ends[p]! + kept.length]!;
      places[b] = (at + offset) % this.#reservoir.capacity;
    }
    const picked = this.#reservoir.pick(places);
    if (!this.#fits) this.#slide(batch);
    return picked;
  }

  /**
   * Goes to a position of the same text, model, options and seed; the model runs over the documents in the
   * reservoir again with the next batch, which is the one that followed there.
   * @throws {RangeError} If it is no position of this text.
   */
  async restore(
    { rng, firstGroup, nDrawn, document = -1, token = 0 }: BatchPosition,
  ): Promise<void> {
    const start = { document, token };
    const numbers = [firstGroup, nDrawn, document, token];
    const whole = numbers.every((n) => Number.isSafeInteger(n) && n >= 0);
    let isPlace = whole && comparePositions(start, this.#passes.first) >= 0 &&
      (!this.#fits || firstGroup === 0);
    if (!isPlace) throw this.#notHere(firstGroup, start);
    if (firstGroup !== this.#firstPass) {
      this.#buffer.length = 0;
      await this.#passes.seek(start);
      this.#ahead = await this.#passes.next();
      isPlace = comparePositions(this.#ahead.start, start) === 0;
    }
    if (!isPlace) throw this.#notHere(firstGroup, start);
    this.#draws.state = rng;
    this.#firstPass = firstGroup;
    this.#oldest = start;
    this.#nDrawn = nDrawn;
  }

  #notHere(pass: number, { document, token }: TextPosition): RangeError {
    return new RangeError(
      `Cannot resume the batches of "${this.name}": expected a position of this text: got pass ${pass} at token ${token} of document ${document}`,
    );
  }

  /** The vectors that are held out: bits of bf16 `[n, d_model]`, a pass at a time. */
  async *heldOut(): AsyncGenerator<Uint16Array<ArrayBuffer>> {
    yield* this.#held?.kept((norms) => this.#keptOf(norms)) ?? [];
  }

  /** Frees the memory; the model is its owner's. */
  [Symbol.dispose](): void {
    this.#owned.dispose();
  }

  async #start(): Promise<void> {
    const { batches: { batch, holdOut, init } } = this.#options;
    await this.#holdOut(holdOut);
    await this.#load();
    const norms = this.#buffer.flatMap(({ norms, kept }) =>
      Array.from(kept, (row) => norms[row]!)
    );
    this.#filter.learn(Float64Array.from(norms));
    for (const pass of this.#buffer) {
      const kept = this.#keptOf(pass.norms);
      this.#drop({ highNorm: pass.kept.length - kept.length });
      pass.kept = kept;
    }
    const measure = new RowMeasure(this.d_model, { init, nMost: norms.length });
    for (const pass of this.#buffer) {
      if (pass.kept.length > 0) measure.add(await this.#read(pass));
    }
    if (measure.n === 0) throw noneLeft(this.name, this.#dropped);
    this.#statistics = measure.finish(this.name);
    checkEnough(measure.n, this.#fits ? batch : 1, this.name, this.#dropped);
  }

  /** Sets the rows of the first passes aside, until there are n. */
  async #holdOut(n: number): Promise<void> {
    if (n === 0) return;
    this.#held = await HeldRows.take(this.#gpu, this.#passes, {
      n,
      d_model: this.d_model,
      name: this.name,
    });
    this.#ahead = await this.#passes.next();
    this.#passes.first = this.#ahead.start;
    this.#oldest = this.#ahead.start;
  }

  /** Fills the reservoir so that there are rows to draw from. */
  async #fill(): Promise<void> {
    for (let nEmpty = 0; nEmpty < MOST_EMPTY;) {
      await this.#load();
      if (this.#buffer.some(({ kept }) => kept.length > 0)) return;
      nEmpty += this.#buffer.length;
      this.#slide(0);
    }
    throw noneLeft(this.name, this.#dropped);
  }

  /** Puts passes into the reservoir as long as they fit, and submits the one after them. */
  async #load(): Promise<void> {
    if (this.#fits && this.#buffer.length > 0) return;
    const isFirst = this.#statistics === undefined;
    let total = this.#buffer.reduce((sum, { n }) => sum + n, 0);
    for (;;) {
      this.#ahead ??= await this.#passes.next();
      const ahead = this.#ahead;
      if (isFirst && ahead.epoch > 0 && this.#buffer.length > 0) {
        this.#fits = true;
        return;
      }
      const isFull = total + ahead.n > this.#options.batches.bufferRows;
      if (isFull && this.#buffer.length > 0) return;
      await this.#store(ahead);
      this.#ahead = undefined;
      total += ahead.n;
    }
  }

  async #store(pass: ModelPass): Promise<void> {
    const { start, n } = pass;
    const norms = await pass.norms;
    const finite = norms.filter((norm) => norm >= 0).length;
    const kept = this.#keptOf(norms);
    if (pass.epoch === 0 && comparePositions(start, this.#counted) >= 0) {
      this.#counted = { ...start, token: start.token + 1 };
      this.#drop({
        badRows: n - finite,
        highNorm: finite - kept.length,
        skippedTokens: pass.nSkipped,
      });
    }
    const last = this.#buffer.at(-1);
    const { capacity } = this.#reservoir;
    const at = last ? (last.at + last.n) % capacity : 0;
    this.#gpu.record("fill the reservoir", (rec) => {
      this.#reservoir.store(rec, this.#passes.packed, n, at);
    });
    this.#buffer.push({ start, n, at, norms, kept });
  }

  #keptOf(norms: Float32Array): Uint32Array {
    const { limit } = this.#filter;
    return Uint32Array.from(norms.keys()).filter((row) =>
      norms[row]! >= 0 && norms[row]! <= limit
    );
  }

  #drop(dropped: Partial<DroppedRows>): void {
    this.#dropped = addDropped(this.#dropped, { ...NONE_DROPPED, ...dropped });
  }

  /** Reads the rows of a pass that are kept back. */
  async #read({ n, at, kept }: BufferedPass): Promise<Uint16Array> {
    const words = rowWords(this.d_model);
    using packed: Tensor = this.#gpu.tensor("rows to measure", "u32", [
      n,
      words,
    ]);
    this.#gpu.record("rows to measure", (rec) => {
      this.#reservoir.load(rec, packed, n, at);
    });
    return unpadded(await this.#gpu.readInts(packed), this.d_model, kept);
  }

  #slide(nDrawn: number): void {
    this.#nDrawn += nDrawn;
    while (
      this.#buffer.length > 0 && this.#nDrawn >= this.#buffer[0]!.kept.length
    ) {
      this.#nDrawn -= this.#buffer.shift()!.kept.length;
      this.#firstPass++;
    }
    if (this.#buffer.length === 0) this.#nDrawn = 0;
    const next = this.#buffer[0] ?? this.#ahead;
    if (next) this.#oldest = next.start;
  }
}

/** Index of the first of ascending values that is above another. */
function firstAbove(ascending: readonly number[], value: number): number {
  let [low, high] = [0, ascending.length - 1];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (ascending[middle]! > value) high = middle;
    else low = middle + 1;
  }
  return low;
}
