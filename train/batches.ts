/**
 * Batches of residual vectors: mixed over documents and shards, the same for the
 * same seed, and able to go on where a run stopped.
 * @module
 */
import { Rng } from "../core/rng.ts";
import type {
  BatchOptions,
  BatchPosition,
  BatchSource,
  DroppedRows,
} from "./batch_source.ts";
import { RowFilter, rowNormsOf } from "./row_filter.ts";
import { FilteredGroups, type RowGroups } from "./row_groups.ts";
import { RowMeasure, type RowStatistics } from "./row_statistics.ts";

export type { BatchOptions, BatchPosition, RowGroups, RowStatistics };
export { rowGroupsOf } from "./row_groups.ts";

/** Vectors that statistics are taken of, at most, where data does not fit into the buffer; a larger buffer allows more. */
export const SAMPLE_ROWS = 2 ** 18;

interface LoadedGroup {
  /** Number of vectors. */
  readonly n: number;
  readonly rows: Uint16Array<ArrayBuffer>;
}

/**
 * Draws batches with replacement from a buffer of row groups. Data that fits
 * into the buffer stays there. Otherwise groups pass through it in random order,
 * anew in every epoch: each time as many vectors were drawn as the oldest group
 * has, it makes room, so that an epoch of batches draws each vector once on average.
 * The buffer holds at most `bufferRows` vectors or one group, and one group more is on its way.
 *
 * `statistics.n` counts the vectors that are drawn from; where not all of them
 * were measured, those that a filter will leave out are counted, too.
 */
export class Batches implements BatchSource {
  /** What errors call the data. */
  readonly name: string;
  /** Size of a vector. */
  readonly d_model: number;
  /** Of the vectors that are drawn from. */
  readonly statistics: RowStatistics;
  readonly #groups: FilteredGroups;
  readonly #options: BatchOptions;
  readonly #fits: boolean;
  readonly #draws: Rng;
  readonly #orders: Rng;
  readonly #order = new Map<number, Uint32Array>();
  readonly #buffer: LoadedGroup[] = [];
  #firstGroup = 0;
  #nDrawn = 0;
  #ahead: { place: number; group: Promise<LoadedGroup> } | undefined;

  private constructor(
    { name, d_model }: RowGroups,
    groups: FilteredGroups,
    options: BatchOptions,
    statistics: RowStatistics,
    fits: boolean,
  ) {
    this.#groups = groups;
    this.#options = options;
    this.name = name;
    this.d_model = d_model;
    this.statistics = statistics;
    this.#fits = fits;
    const rng = new Rng(options.seed);
    this.#draws = rng.fork("batches");
    this.#orders = rng.fork("order of row groups");
  }

  /**
   * Measures mean and norms: of all vectors where they fit into the buffer, which keeps them, else of
   * row groups drawn by the seed, up to {@link SAMPLE_ROWS} or `bufferRows` vectors, whichever is more.
   * @throws {RangeError} If fewer than a batch are left to draw from, or a vector is not finite: names shard and row.
   * @throws {TypeError} If tokens are left out and the data does not tell them.
   */
  static async open(
    groups: RowGroups,
    options: BatchOptions,
  ): Promise<Batches> {
    const { name, d_model } = groups;
    const { batch, bufferRows, holdOut, init, seed } = options;
    const total = groups.sizes.reduce((sum, n) => sum + n, 0);
    const nTrain = total - holdOut;
    if (nTrain < 1) {
      throw new RangeError(
        `Cannot train on "${name}": expected more than the ${holdOut} vectors that are held out: got ${total}: collect more, or hold out fewer`,
      );
    }
    const fits = nTrain <= bufferRows;
    const filter = new RowFilter(options);
    const kept = new FilteredGroups(groups, filter, holdOut);
    const sample = fits
      ? [...kept.sizes.keys()]
      : sampleOf(kept.sizes, Math.max(bufferRows, SAMPLE_ROWS), seed);
    const buffer: LoadedGroup[] = [];
    const measure = async (onRows?: (rows: Uint16Array) => void) => {
      const measured = new RowMeasure(d_model, { init, nMost: nTrain });
      buffer.length = 0;
      for (const group of sample) {
        const rows = await kept.read(group);
        onRows?.(rows);
        measured.add(rows);
        if (fits) buffer.push({ n: rows.length / d_model, rows });
      }
      return measured;
    };
    const norms: Float64Array[] = [];
    let measured = await measure(
      filter.maxNorm > 0
        ? (rows) => norms.push(rowNormsOf(rows, d_model))
        : undefined,
    );
    filter.learn(joined(norms));
    const isLong = (norm: number): boolean => norm > filter.limit;
    if (norms.some((some) => some.some(isLong))) measured = await measure();
    const isWhole = sample.length === kept.sizes.length;
    if (measured.n === 0) throw noneLeft(name, kept.dropped);
    const statistics = measured.finish(name, isWhole ? measured.n : nTrain);
    checkEnough(statistics.n, batch, name, kept.dropped);
    const batches = new Batches(groups, kept, options, statistics, fits);
    batches.#buffer.push(...buffer);
    return batches;
  }

  /** What was left out of the groups that were read. */
  get dropped(): DroppedRows {
    return this.#groups.dropped;
  }

  /** Draws the next batch: bits of bf16 `[batch, d_model]`. */
  async next(): Promise<Uint16Array<ArrayBuffer>> {
    const total = await this.#fill();
    const { batch } = this.#options;
    const { d_model } = this;
    const drawn = new Uint16Array(batch * d_model);
    for (let b = 0; b < batch; b++) {
      let row = this.#draws.below(total);
      let at = 0;
      while (row >= this.#buffer[at]!.n) row -= this.#buffer[at++]!.n;
      const { rows } = this.#buffer[at]!;
      drawn.set(
        rows.subarray(row * d_model, (row + 1) * d_model),
        b * d_model,
      );
    }
    if (!this.#fits) this.#slide(batch);
    return drawn;
  }

  /** Where the next batch starts. */
  get position(): BatchPosition {
    return {
      rng: this.#draws.state,
      firstGroup: this.#firstGroup,
      nDrawn: this.#nDrawn,
    };
  }

  /**
   * Goes to a position of the same data, options and seed; the next batch is the one that followed there.
   * @throws {RangeError} If it is no position of this data.
   */
  restore({ rng, firstGroup, nDrawn, document }: BatchPosition): void {
    const isPlace = Number.isSafeInteger(firstGroup) && firstGroup >= 0 &&
      document === undefined && (!this.#fits || firstGroup === 0);
    if (!isPlace || !(nDrawn >= 0 && nDrawn <= this.statistics.n)) {
      throw new RangeError(
        `Cannot resume the batches of "${this.name}": expected a position of this data: got group ${firstGroup}, ${nDrawn} drawn`,
      );
    }
    this.#draws.state = rng;
    if (firstGroup !== this.#firstGroup) this.#buffer.length = 0;
    this.#firstGroup = firstGroup;
    this.#nDrawn = nDrawn;
  }

  /** The vectors that are held out, in order: bits of bf16 `[n, d_model]`, a group at a time. */
  heldOut(): AsyncGenerator<Uint16Array<ArrayBuffer>> {
    return this.#groups.heldOut();
  }

  /** Nothing to free: for those who hold any source. */
  [Symbol.dispose](): void {}

  /** Loads groups as long as they fit, and begins with the one after them; gives how many vectors are there. */
  async #fill(): Promise<number> {
    // The only group with a vector may be the first of one epoch and the last of the next.
    for (let nEmpty = 0; nEmpty < 2 * this.#groups.sizes.length;) {
      await this.#load();
      const total = this.#buffer.reduce((sum, { n }) => sum + n, 0);
      if (total > 0) return total;
      // All of them were left out: on to others.
      nEmpty += this.#buffer.length;
      this.#firstGroup += this.#buffer.length;
      this.#buffer.length = 0;
      this.#nDrawn = 0;
    }
    throw noneLeft(this.name, this.dropped);
  }

  async #load(): Promise<void> {
    const { sizes } = this.#groups;
    if (this.#fits && this.#buffer.length > 0) return;
    // By their sizes before anything is left out: what fits is known before it is read.
    let total = 0;
    for (const at of this.#buffer.keys()) {
      total += sizes[this.#groupAt(this.#firstGroup + at)]!;
    }
    for (;;) {
      const place = this.#firstGroup + this.#buffer.length;
      if (this.#fits && place === sizes.length) return;
      const n = sizes[this.#groupAt(place)]!;
      this.#ahead = this.#ahead?.place === place
        ? this.#ahead
        : this.#startReading(place);
      const isFull = total + n > this.#options.bufferRows;
      if (isFull && this.#buffer.length > 0) return;
      this.#buffer.push(await this.#ahead.group);
      this.#ahead = undefined;
      total += n;
    }
  }

  #startReading(
    place: number,
  ): { place: number; group: Promise<LoadedGroup> } {
    const group = this.#groups.read(this.#groupAt(place)).then((rows) => ({
      n: rows.length / this.d_model,
      rows,
    }));
    // A failure is thrown where the group is awaited.
    group.catch(() => {});
    return { place, group };
  }

  #slide(nDrawn: number): void {
    this.#nDrawn += nDrawn;
    while (this.#buffer.length > 0 && this.#nDrawn >= this.#buffer[0]!.n) {
      this.#nDrawn -= this.#buffer.shift()!.n;
      this.#firstGroup++;
    }
    // A batch of more vectors than the buffer has replaces all of it, and no group goes by unseen.
    if (this.#buffer.length === 0) this.#nDrawn = 0;
  }

  /** The group at a place of the endless sequence: epoch after epoch, each in an order of its own. */
  #groupAt(place: number): number {
    const n = this.#groups.sizes.length;
    const epoch = Math.floor(place / n);
    let order = this.#order.get(epoch);
    if (!order) {
      order = Uint32Array.from(this.#groups.sizes.keys());
      if (!this.#fits) this.#orders.fork(String(epoch)).shuffle(order);
      // A buffer may reach over the end of an epoch.
      this.#order.delete(epoch - 2);
      this.#order.set(epoch, order);
    }
    return order[place % n]!;
  }
}

/** Groups drawn by the seed until the next would exceed `most` vectors, at least one; ascending. */
function sampleOf(
  sizes: readonly number[],
  most: number,
  seed: number,
): number[] {
  const order = Uint32Array.from(sizes.keys());
  new Rng(seed).fork("sample for statistics").shuffle(order);
  const sample: number[] = [];
  let total = 0;
  for (const group of order) {
    total += sizes[group]!;
    if (total > most && sample.length > 0) break;
    sample.push(group);
  }
  return sample.sort((a, b) => a - b);
}

function joined(parts: readonly Float64Array[]): Float64Array {
  const all = new Float64Array(
    parts.reduce((sum, { length }) => sum + length, 0),
  );
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

/**
 * Refuses data of fewer than `least` vectors.
 * @throws {RangeError} Says how many there are, and how many were left out.
 */
export function checkEnough(
  n: number,
  least: number,
  name: string,
  dropped: DroppedRows,
): void {
  if (n >= least) return;
  throw new RangeError(
    `Cannot train on "${name}": expected at least ${least} vectors, a batch: got ${n} (${
      describeDropped(dropped)
    }): collect more, hold out fewer, or make batches smaller`,
  );
}

/** The error of data of which nothing is left. */
export function noneLeft(name: string, dropped: DroppedRows): RangeError {
  return new RangeError(
    `Cannot train on "${name}": expected vectors to draw from: got none (${
      describeDropped(dropped)
    }): leave out fewer`,
  );
}

function describeDropped(
  { badRows, highNorm, skippedTokens }: DroppedRows,
): string {
  return `left out: ${badRows} not finite, ${skippedTokens} of skipped tokens, ${highNorm} of a high norm`;
}
