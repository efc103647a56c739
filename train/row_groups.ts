/**
 * Vectors in groups that can be read in any order: the row groups of a folder's
 * shards, and the same without what is held out or left out.
 * @module
 */
import type { ResidualFolder } from "../core/residuals.ts";
import type { BatchOptions, DroppedRows } from "./batch_source.ts";
import {
  addDropped,
  type FilteredRows,
  NONE_DROPPED,
  type RowFilter,
} from "./row_filter.ts";

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
   * @param options.keepBad Whether vectors that are not finite are given, too.
   * @throws {RangeError} If a value is not finite and bad ones are not kept: names shard and row.
   */
  read(
    group: number,
    options?: { readonly keepBad?: boolean },
  ): Promise<Uint16Array<ArrayBuffer>>;
  /** Token of each vector of a group; undefined, as all of it may be, where that was not recorded. */
  tokens?(group: number): Promise<Int32Array | undefined>;
}

/** Groups that a buffer holds at least, unless they would be smaller than {@link LEAST_PART}. */
const GROUPS_IN_BUFFER = 8;
/** Vectors of a part at least: each part reads its whole row group again. */
const LEAST_PART = 512;

/** Vectors that are read as a group: a row group of a shard, or a part of one. */
interface Place {
  readonly shard: number;
  readonly group: number;
  /** First vector, and the one after the last, in the row group. */
  readonly start: number;
  readonly end: number;
  /** Whether that is not all of it. */
  readonly isPart: boolean;
}

/** A row group that was read for one of its parts. */
interface SplitGroup extends Pick<Place, "shard" | "group"> {
  readonly keepBad: boolean;
  readonly rows: Uint16Array<ArrayBuffer>;
}

/**
 * The row groups of all shards of a folder. Footers are read now, rows when asked for.
 * @param buffer What batches will be drawn from. Where the data does not fit into it, row groups of which it holds
 * only a few are split, because a buffer of few groups mixes few documents.
 */
export async function rowGroupsOf(
  folder: ResidualFolder,
  { bufferRows = Infinity, holdOut = 0 }: Partial<
    Pick<BatchOptions, "bufferRows" | "holdOut">
  > = {},
): Promise<RowGroups> {
  const { shards, model, n_tokens } = folder.manifest;
  const most = n_tokens - holdOut <= bufferRows
    ? Infinity
    : Math.max(LEAST_PART, Math.floor(bufferRows / GROUPS_IN_BUFFER));
  const places: Place[] = [];
  for (const shard of shards.keys()) {
    const { rowGroups } = await folder.shard(shard);
    for (const [group, { n_rows }] of rowGroups.entries()) {
      const nParts = Math.ceil(n_rows / most) || 1;
      for (let part = 0; part < nParts; part++) {
        const [start, end] = [part, part + 1].map((i) =>
          Math.floor(i * n_rows / nParts)
        ) as [number, number];
        places.push({ shard, group, start, end, isPart: nParts > 1 });
      }
    }
  }
  const { d_model } = model;
  // Parts of one group are often read one after the other: for statistics, and when they are held out.
  let last: SplitGroup | undefined;
  const splitGroup = async (
    { shard, group }: Place,
    keepBad: boolean,
  ): Promise<Uint16Array<ArrayBuffer>> => {
    const isLast = last?.shard === shard && last.group === group &&
      last.keepBad === keepBad;
    if (last && isLast) return last.rows;
    // Gone before the next one is there, so that only one is in memory.
    last = undefined;
    const rows = await (await folder.shard(shard)).rows(group, { keepBad });
    last = { shard, group, keepBad, rows };
    return rows;
  };
  // A shard is opened anew for each group: open ones keep the group that they read last.
  return {
    name: folder.name,
    d_model,
    sizes: places.map(({ start, end }) => end - start),
    async read(index, { keepBad = false } = {}) {
      const place = places[index]!;
      const { shard, group, start, end, isPart } = place;
      if (!isPart) {
        return await (await folder.shard(shard)).rows(group, { keepBad });
      }
      const rows = await splitGroup(place, keepBad);
      return rows.slice(start * d_model, end * d_model);
    },
    async tokens(index): Promise<Int32Array | undefined> {
      const { shard, group, start, end } = places[index]!;
      const all = await (await folder.shard(shard)).tokenIds(group);
      return all?.slice(start, end);
    },
  };
}

/** Groups without the vectors at their end that are held out, and without those that a filter leaves out. */
export class FilteredGroups {
  readonly #groups: RowGroups;
  readonly #filter: RowFilter;
  /** How many vectors of each group are not held out; only the last groups have fewer than all. */
  readonly sizes: readonly number[];
  readonly #droppedOf = new Map<number, DroppedRows>();
  #dropped = NONE_DROPPED;

  /** Holds the last `holdOut` vectors out. */
  constructor(groups: RowGroups, filter: RowFilter, holdOut: number) {
    this.#groups = groups;
    this.#filter = filter;
    let left = groups.sizes.reduce((sum, n) => sum + n, 0) - holdOut;
    const kept = groups.sizes.map((n) => {
      const part = Math.max(0, Math.min(n, left));
      left -= n;
      return part;
    });
    this.sizes = kept.slice(0, kept.findLastIndex((n) => n > 0) + 1);
  }

  /** What was left out of all groups that were read. */
  get dropped(): DroppedRows {
    return this.#dropped;
  }

  /**
   * The vectors of a group that are drawn from: bits of bf16 `[n, d_model]`.
   * @throws {TypeError} If tokens are left out and the group has none.
   */
  async read(group: number): Promise<Uint16Array<ArrayBuffer>> {
    const { rows, dropped } = await this.#part(group, 0, this.sizes[group]!);
    // A group that is read again, with a limit that is known by now, counts once.
    const before = this.#droppedOf.get(group) ?? NONE_DROPPED;
    if (dropped !== before) {
      this.#dropped = {
        badRows: this.#dropped.badRows - before.badRows,
        highNorm: this.#dropped.highNorm - before.highNorm,
        skippedTokens: this.#dropped.skippedTokens - before.skippedTokens,
      };
      this.#dropped = addDropped(this.#dropped, dropped);
      this.#droppedOf.set(group, dropped);
    }
    return rows;
  }

  /** The vectors that are held out, a group at a time. */
  async *heldOut(): AsyncGenerator<Uint16Array<ArrayBuffer>> {
    for (const [group, size] of this.#groups.sizes.entries()) {
      const from = this.sizes[group] ?? 0;
      if (from === size) continue;
      const { rows } = await this.#part(group, from, size);
      if (rows.length > 0) yield rows.slice();
    }
  }

  async #part(
    group: number,
    start: number,
    end: number,
  ): Promise<FilteredRows> {
    const { name, d_model } = this.#groups;
    const { skipBadRows, needsTokens } = this.#filter;
    const rows = await this.#groups.read(group, { keepBad: skipBadRows });
    const tokens = needsTokens ? await this.#groups.tokens?.(group) : undefined;
    if (needsTokens && !tokens) {
      throw new TypeError(
        `Cannot leave out tokens of "${name}": expected shards that say which token each vector belongs to: got vectors alone: collect them with this tool, or skip no tokens`,
      );
    }
    return this.#filter.apply(
      rows.subarray(start * d_model, end * d_model),
      d_model,
      tokens?.subarray(start, end),
    );
  }
}
