/**
 * Batches of residual vectors: mixed over documents and shards, the same for the
 * same seed, and able to go on where a run stopped.
 * @module
 */
import type { ResidualFolder } from "../core/residuals.ts";
import { Rng, type RngState } from "../core/rng.ts";
import { RowSums } from "./row_sums.ts";

/** Vectors in groups that can be read in any order. */
export interface RowGroups {
  /** What errors call the whole. */
  readonly name: string;
  /** Size of a vector. */
  readonly d_model: number;
  /** Number of vectors in each group. */
  readonly sizes: readonly number[];
  /**
   * Bits of bf16 `[sizes[group], d_model]`.
   * @throws {RangeError} If a value is not finite: names shard and row.
   */
  read(group: number): Promise<Uint16Array<ArrayBuffer>>;
}

/** How batches are drawn. */
export interface BatchOptions {
  /** Vectors of a batch. */
  readonly batch: number;
  /** Most vectors in memory; at least one group is. */
  readonly bufferRows: number;
  /** Vectors at the end of the data that are never drawn. */
  readonly holdOut: number;
  /** Seed of the order. */
  readonly seed: number;
}

/** What is known of the vectors that are drawn from. */
export interface RowStatistics {
  /** How many there are. */
  readonly n: number;
  /** Their mean, unscaled, `[d_model]`. */
  readonly mean: Float64Array;
  /** Their geometric median, unscaled, `[d_model]`, where it was asked for. */
  readonly median?: Float64Array;
  /** Mean of their L2 norms. */
  readonly meanNorm: number;
  /** Mean of Σ_j (x − mean)², unscaled: what the FVU is a share of. */
  readonly variance: number;
  /** √d_model / meanNorm: scales the mean norm to √d_model. */
  readonly inputScale: number;
}

/** Where a run of batches stands. */
export interface BatchPosition {
  /** State of the draws. */
  readonly rng: RngState;
  /** Place of the oldest group in memory in the endless sequence of groups. */
  readonly firstGroup: number;
  /** Vectors drawn since that group became the oldest. */
  readonly nDrawn: number;
}

/** The row groups of all shards of a folder. Footers are read now, rows when asked for. */
export async function rowGroupsOf(folder: ResidualFolder): Promise<RowGroups> {
  const { shards, model } = folder.manifest;
  const places: { shard: number; group: number }[] = [];
  const sizes: number[] = [];
  for (const shard of shards.keys()) {
    const { rowGroups } = await folder.shard(shard);
    for (const [group, { n_rows }] of rowGroups.entries()) {
      places.push({ shard, group });
      sizes.push(n_rows);
    }
  }
  return {
    name: folder.name,
    d_model: model.d_model,
    sizes,
    async read(index): Promise<Uint16Array<ArrayBuffer>> {
      const { shard, group } = places[index]!;
      return (await (await folder.shard(shard)).read(group)).rows;
    },
  };
}

interface LoadedGroup {
  /** Number of vectors to draw from; those held out come after them. */
  readonly n: number;
  readonly rows: Uint16Array<ArrayBuffer>;
}

/**
 * Draws batches with replacement from a buffer of row groups. Data that fits
 * into the buffer stays there. Otherwise groups pass through it in random order,
 * anew in every epoch: each time as many vectors were drawn as the oldest group
 * has, it makes room, so that an epoch of batches draws each vector once on average.
 */
export class Batches {
  /** Size of a vector. */
  readonly d_model: number;
  /** Of the vectors that are drawn from. */
  readonly statistics: RowStatistics;
  readonly #groups: RowGroups;
  readonly #options: BatchOptions;
  /** How many vectors of each group are not held out; only the last groups have fewer than all. */
  readonly #sizes: readonly number[];
  readonly #fits: boolean;
  readonly #draws: Rng;
  readonly #orders: Rng;
  readonly #order = new Map<number, Uint32Array>();
  readonly #buffer: LoadedGroup[] = [];
  #firstGroup = 0;
  #nDrawn = 0;
  #ahead: { place: number; group: Promise<LoadedGroup> } | undefined;

  private constructor(
    groups: RowGroups,
    options: BatchOptions,
    sizes: readonly number[],
    statistics: RowStatistics,
  ) {
    this.#groups = groups;
    this.#options = options;
    this.#sizes = sizes;
    this.d_model = groups.d_model;
    this.statistics = statistics;
    this.#fits = statistics.n <= options.bufferRows;
    const rng = new Rng(options.seed);
    this.#draws = rng.fork("batches");
    this.#orders = rng.fork("order of row groups");
  }

  /**
   * Reads all vectors once: checks them and measures their mean and norms.
   * @throws {RangeError} If too few are left to draw from, or a vector is not finite: names shard and row.
   */
  static async open(
    groups: RowGroups,
    options: BatchOptions,
  ): Promise<Batches> {
    const total = groups.sizes.reduce((sum, n) => sum + n, 0);
    const nTrain = total - options.holdOut;
    if (nTrain < 1) {
      throw new RangeError(
        `Cannot train on "${groups.name}": expected more than the ${options.holdOut} vectors that are held out: got ${total}: collect more, or hold out fewer`,
      );
    }
    let start = 0;
    const kept = groups.sizes.map((n) => {
      start += n;
      return Math.max(0, Math.min(n, nTrain - (start - n)));
    });
    const sizes = kept.slice(0, kept.findLastIndex((n) => n > 0) + 1);
    const keep: LoadedGroup[] = [];
    const sums = new RowSums(groups.d_model);
    for (const [group, n] of sizes.entries()) {
      const rows = await groups.read(group);
      sums.add(rows.subarray(0, n * groups.d_model));
      if (nTrain <= options.bufferRows) keep.push({ n, rows });
    }
    const statistics = statisticsOf(sums, groups.name);
    const batches = new Batches(groups, options, sizes, statistics);
    batches.#buffer.push(...keep);
    return batches;
  }

  /** Draws the next batch: bits of bf16 `[batch, d_model]`. */
  async next(): Promise<Uint16Array<ArrayBuffer>> {
    await this.#fill();
    const { batch } = this.#options;
    const { d_model } = this;
    const total = this.#buffer.reduce((sum, { n }) => sum + n, 0);
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
  restore({ rng, firstGroup, nDrawn }: BatchPosition): void {
    const isPlace = Number.isSafeInteger(firstGroup) && firstGroup >= 0 &&
      (!this.#fits || firstGroup === 0);
    if (!isPlace || !(nDrawn >= 0 && nDrawn <= this.statistics.n)) {
      throw new RangeError(
        `Cannot resume the batches of "${this.#groups.name}": expected a position of this data: got group ${firstGroup}, ${nDrawn} drawn`,
      );
    }
    this.#draws.state = rng;
    if (firstGroup !== this.#firstGroup) this.#buffer.length = 0;
    this.#firstGroup = firstGroup;
    this.#nDrawn = nDrawn;
  }

  /** The vectors that are held out, in order: bits of bf16 `[n, d_model]`, a group at a time. */
  async *heldOut(): AsyncGenerator<Uint16Array<ArrayBuffer>> {
    for (const [group, size] of this.#groups.sizes.entries()) {
      const from = this.#sizes[group] ?? 0;
      if (from === size) continue;
      yield (await this.#groups.read(group)).slice(from * this.d_model);
    }
  }

  /** Loads groups as long as they fit, and begins with the one after them. */
  async #fill(): Promise<void> {
    if (this.#fits && this.#buffer.length > 0) return;
    let total = this.#buffer.reduce((sum, { n }) => sum + n, 0);
    for (;;) {
      const place = this.#firstGroup + this.#buffer.length;
      if (this.#fits && place === this.#sizes.length) return;
      const n = this.#sizes[this.#groupAt(place)]!;
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
    const index = this.#groupAt(place);
    const n = this.#sizes[index]!;
    const group = this.#groups.read(index).then((rows) => ({ n, rows }));
    // A failure is thrown where the group is awaited.
    group.catch(() => {});
    return { place, group };
  }

  #slide(nDrawn: number): void {
    this.#nDrawn += nDrawn;
    for (;;) {
      const n = this.#sizes[this.#groupAt(this.#firstGroup)]!;
      if (this.#nDrawn < n) return;
      this.#nDrawn -= n;
      this.#firstGroup++;
      this.#buffer.shift();
    }
  }

  /** The group at a place of the endless sequence: epoch after epoch, each in an order of its own. */
  #groupAt(place: number): number {
    const n = this.#sizes.length;
    const epoch = Math.floor(place / n);
    let order = this.#order.get(epoch);
    if (!order) {
      order = Uint32Array.from(this.#sizes.keys());
      if (!this.#fits) this.#orders.fork(String(epoch)).shuffle(order);
      this.#order.clear();
      this.#order.set(epoch, order);
    }
    return order[place % n]!;
  }
}

function statisticsOf(sums: RowSums, name: string): RowStatistics {
  const { n, meanNorm } = sums;
  if (!(meanNorm > 0 && meanNorm < Infinity)) {
    throw new RangeError(
      `Cannot scale the vectors of "${name}": expected a mean norm above 0: got ${meanNorm}: collect them again`,
    );
  }
  const mean = sums.mean();
  const inputScale = Math.sqrt(mean.length) / meanNorm;
  return { n, mean, meanNorm, variance: sums.variance(), inputScale };
}
