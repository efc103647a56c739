/**
 * Random activations with the lists that the sparse path makes of them, in plain
 * loops: what the tests of its kernels start from and compare with.
 * @module
 */
import type { Draw, HostTensor } from "./run_kernel.ts";

/** What integer outputs hold before a launch; none of the tests' results is as large. */
export const POISON = 0xdead_beef;

/** Feature of the entries that fill a row up to a multiple of 4. */
export const NONE = 0xffff_ffff;

/** Features `[start, end)`, with their first tile and block. */
export interface CaseWindow {
  readonly start: number;
  readonly end: number;
  readonly tile0: number;
  readonly tile1: number;
  readonly block0: number;
}

/** Activations, and what they are cut into. */
export interface EntryCase {
  readonly B: number;
  readonly d_sae: number;
  /** Features of a tile. */
  readonly width: number;
  readonly windows: readonly CaseWindow[];
  readonly nTiles: number;
  readonly nBlocks: number;
  /** f32 `[B, d_sae]` */
  readonly acts: Float32Array<ArrayBuffer>;
}

/** Entries by row. */
export interface Lists {
  /** `[nTiles, B]` */
  readonly masks: Uint32Array<ArrayBuffer>;
  /** `[nTiles, B]` */
  readonly starts: Uint32Array<ArrayBuffer>;
  /** `[B]` */
  readonly rowEntries: Uint32Array<ArrayBuffer>;
  /** `[B + 1]` */
  readonly rowStart: Uint32Array<ArrayBuffer>;
  /** `[n, 2]`: feature and activation bits. */
  readonly entries: Uint32Array<ArrayBuffer>;
  /** `[n / 4]` */
  readonly entryRows: Uint32Array<ArrayBuffer>;
}

/** Entries by feature. */
export interface Columns {
  /** `[d_sae, words]` */
  readonly bitmap: Uint32Array<ArrayBuffer>;
  readonly words: number;
  /** `[d_sae, 2]`: entries before the feature's in its block, and its own. */
  readonly runs: Uint32Array<ArrayBuffer>;
  /** `[nBlocks]`: entries of each block. */
  readonly blockCounts: Uint32Array<ArrayBuffer>;
  /** `[nBlocks]`: entries before each block. */
  readonly blocks: Uint32Array<ArrayBuffer>;
  /** Places in the lists by row, in the order of the columns. */
  readonly order: readonly number[];
}

/**
 * About 4 in 100 activations are not 0, and a few of them -0. Row 1 has none and row 2 has all. Feature 5 has none but
 * there, feature 7 one in every row but row 1, feature 9 none at all, and feature 11 only a -0 in row 2.
 * @param sizes Features of the windows; all but the last are multiples of 64.
 */
export function entryCase(
  draw: Draw,
  { B, sizes, width = 32 }: {
    readonly B: number;
    readonly sizes: readonly number[];
    readonly width?: number;
  },
): EntryCase {
  const d_sae = sizes.reduce((sum, size) => sum + size, 0);
  const values = draw(B * d_sae);
  const acts = values.map((value, at) => {
    const [b, i] = [Math.floor(at / d_sae), at % d_sae];
    if (b === 1 || i === 9) return 0;
    if (i === 11) return b === 2 ? -0 : 0;
    if (b === 2 || i === 7) return Math.abs(value) + 0.1;
    if (i === 5 || Math.abs(value) < 2) return 0;
    return value < -2.6 ? -0 : Math.abs(value) - 1.9;
  });
  let [start, tile0, block0] = [0, 0, 0];
  const windows = sizes.map((size) => {
    const tile1 = tile0 + Math.ceil(size / width);
    const window = { start, end: start + size, tile0, tile1, block0 };
    [start, tile0, block0] = [
      window.end,
      tile1,
      block0 + Math.ceil(size / 256),
    ];
    return window;
  });
  return { B, d_sae, width, windows, nTiles: tile0, nBlocks: block0, acts };
}

/** Columns `[start, end)` of a matrix with rows of `width`. */
export function columnsOf<T extends Float32Array | Uint32Array>(
  matrix: T,
  width: number,
  { start, end }: { readonly start: number; readonly end: number },
): T {
  return matrix.filter((_, at) => at % width >= start && at % width < end) as T;
}

/** Rows `[start, end)` of a matrix with rows of `width`. */
export function rowsOf<T extends Float32Array | Uint32Array>(
  matrix: T,
  width: number,
  { start, end }: { readonly start: number; readonly end: number },
): T {
  return matrix.slice(start * width, end * width) as T;
}

/** The lists of a case. */
export function listsOf(
  { B, d_sae, width, windows, nTiles, acts }: EntryCase,
): Lists {
  const bits = new Uint32Array(acts.buffer);
  const masks = new Uint32Array(nTiles * B);
  const starts = new Uint32Array(nTiles * B);
  const rowEntries = new Uint32Array(B);
  const rowStart = new Uint32Array(B + 1);
  const entries: number[] = [];
  const entryRows: number[] = [];
  for (let b = 0; b < B; b++) {
    const before = new Array<number>(nTiles).fill(0);
    for (const { start, end, tile0 } of windows) {
      for (let i = start; i < end; i++) {
        const tile = tile0 + Math.floor((i - start) / width);
        if ((i - start) % width === 0) starts[tile * B + b] = rowEntries[b]!;
        if (bits[b * d_sae + i] === 0) continue;
        const bit = (i - start) % width;
        masks[tile * B + b] = (masks[tile * B + b]! | (1 << bit)) >>> 0;
        rowEntries[b]!++;
        before[tile]!++;
        entries.push(i, bits[b * d_sae + i]!);
      }
    }
    while (entries.length % 8 !== 0) entries.push(NONE, 0);
    rowStart[b + 1] = entries.length / 2;
    while (entryRows.length < entries.length / 8) entryRows.push(b);
  }
  return {
    masks,
    starts,
    rowEntries,
    rowStart,
    entries: Uint32Array.from(entries),
    entryRows: Uint32Array.from(entryRows),
  };
}

/** The lists by feature. */
export function sortOf(
  { B, d_sae, windows, nBlocks }: EntryCase,
  lists: Lists,
): Columns {
  const words = Math.ceil(B / 32);
  const bitmap = new Uint32Array(d_sae * words);
  const runs = new Uint32Array(d_sae * 2);
  const blockCounts = new Uint32Array(nBlocks);
  const byFeature = Array.from({ length: d_sae }, (): number[] => []);
  for (let e = 0; e < lists.entries.length / 2; e++) {
    const feature = lists.entries[2 * e]!;
    if (feature === NONE) continue;
    byFeature[feature]!.push(e); // rows come in order
    const b = lists.entryRows[e >> 2]!;
    const at = feature * words + (b >> 5);
    bitmap[at] = (bitmap[at]! | (1 << (b & 31))) >>> 0;
  }
  for (const { start, end, block0 } of windows) {
    for (let i = start; i < end; i++) {
      const block = block0 + Math.floor((i - start) / 256);
      runs.set([blockCounts[block]!, byFeature[i]!.length], 2 * i);
      blockCounts[block]! += byFeature[i]!.length;
    }
  }
  const blocks = startsOf(blockCounts);
  return { bitmap, words, runs, blockCounts, blocks, order: byFeature.flat() };
}

/** Sums of all that come before. */
export function startsOf(counts: Uint32Array): Uint32Array<ArrayBuffer> {
  let sum = 0;
  return Uint32Array.from(counts, (n) => (sum += n) - n);
}

/** A u32 tensor in which each element must be written, or must not. */
export function poisonedWords(shape: readonly number[]): HostTensor {
  const n = shape.reduce((product, size) => product * size, 1);
  return { dtype: "u32", shape, values: new Uint32Array(n).fill(POISON) };
}

/** A u32 tensor without a copy. */
export function ints(
  shape: readonly number[],
  values: Uint32Array<ArrayBuffer>,
): HostTensor {
  return { dtype: "u32", shape, values };
}

/** Neither B nor the windows are multiples of a workgroup; a lane owns up to 3 rows of a scan; the first window has two blocks. */
export const ODD = { B: 131, sizes: [320, 256, 133] };

/** The lists of a case as tensors, with room for 80 entries more that nothing may read. */
export function listTensors({ entries, entryRows, rowStart }: Lists): Readonly<
  Record<"entries" | "entry_rows" | "row_start", HostTensor>
> {
  const room = 80;
  const total = rowStart.at(-1)!;
  const padded = new Uint32Array(2 * (total + room)).fill(POISON);
  padded.set(entries);
  const rows = new Uint32Array((total + room) / 4).fill(POISON);
  rows.set(entryRows);
  return {
    entries: ints([total + room, 2], padded),
    entry_rows: ints([rows.length], rows),
    row_start: ints([rowStart.length], rowStart),
  };
}

/** Features of a window. */
export function sizeOf({ start, end }: CaseWindow): number {
  return end - start;
}

/** Columns as the sort leaves them. */
export function columnTensor(
  lists: Lists,
  { order }: Columns,
  dacts: Float32Array<ArrayBuffer>,
): HostTensor & { readonly values: Uint32Array<ArrayBuffer> } {
  const bits = new Uint32Array(dacts.buffer);
  const values = Uint32Array.from(
    order.flatMap((e) => [
      lists.entryRows[e >> 2]!,
      lists.entries[2 * e + 1]!,
      bits[e]!,
      0,
    ]),
  );
  return { dtype: "u32", shape: [order.length, 4], values };
}

/** An entry of a feature. */
export interface Entry {
  readonly b: number;
  readonly act: number;
  readonly dact: number;
}

/** A case by feature, with gradients of its entries. */
export interface SortedCase {
  readonly c: EntryCase;
  readonly byFeature: readonly (readonly Entry[])[];
  /** u32 `[d_sae]`: marks from 0 to 2. */
  readonly touched: Uint32Array<ArrayBuffer>;
  /** What all windows share. */
  readonly tensors: Readonly<Record<"blocks" | "columns", HostTensor>>;
  /** The runs of a window. */
  readonly runs: (window: CaseWindow) => HostTensor;
}

/** A random {@link SortedCase}. */
export function sortedCase(
  draw: Draw,
  shape: { readonly B: number; readonly sizes: readonly number[] },
): SortedCase {
  const c = entryCase(draw, shape);
  const lists = listsOf(c);
  const sort = sortOf(c, lists);
  const dacts = draw(lists.rowStart[c.B]!);
  // What is touched already has something that is added to; the rest may hold anything.
  const touched = Uint32Array.from({ length: c.d_sae }, (_, i) => i % 3);
  const byFeature = Array.from(
    { length: c.d_sae },
    (): Entry[] => [],
  );
  const acts = new Float32Array(lists.entries.buffer);
  for (const e of sort.order) {
    byFeature[lists.entries[2 * e]!]!.push({
      b: lists.entryRows[e >> 2]!,
      act: acts[2 * e + 1]!,
      dact: dacts[e]!,
    });
  }
  const tensors = {
    blocks: ints([c.nBlocks], sort.blocks),
    columns: columnTensor(lists, sort, dacts),
  };
  const runs = (window: CaseWindow): HostTensor =>
    ints([sizeOf(window), 2], rowsOf(sort.runs, 2, window));
  return { c, byFeature, touched, tensors, runs };
}
