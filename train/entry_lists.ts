/**
 * The activations that are not 0 as lists: what the sparse path works on instead of matrices.
 * @module
 */
import type { FeatureWindow } from "../core/sae.ts";
import { Gate, type Gpu, type Tensor } from "../gpu/mod.ts";
import { featureBlocks } from "../kernels/sae_feature_runs.ts";

/** Most features of a tile: as many as a word has bits. */
export const LARGEST_TILE = 32;

/** Branches of a step; the GPU takes one of them by the number of entries. */
export const DENSE = 0;
/** See {@link DENSE}. */
export const SPARSE = 1;

/** Room for the gated launches of one batch and window, and for those that do not depend on windows; jumprelu has 18 a window where one product turns its operands. */
const LAUNCHES = { perWindow: 24, once: 16 };

/** A window of features, and where its tiles and blocks are among all. */
export interface ListWindow extends FeatureWindow {
  /** First tile. */
  readonly tile0: number;
  /** One past the last tile. */
  readonly tile1: number;
  /** First block of features. */
  readonly block0: number;
}

/** Entries of one batch by row, each row's in the order of the features. */
export class EntryLists implements Disposable {
  /** Most entries there is room for. */
  readonly capacity: number;
  /** Features of a tile. */
  readonly tile: number;
  /** The windows, with their tiles. */
  readonly windows: readonly ListWindow[];
  /** u32 `[n_tiles, B]`: which features of a tile have an entry in a row. */
  readonly tileMasks: Tensor;
  /** f32 `[n_tiles, B]`: what the loss adds up over the activations of a tile. */
  readonly tileSums: Tensor;
  /** u32 `[n_tiles, B]`: entries of the row before the tile. */
  readonly tileStarts: Tensor;
  /** u32 `[B]` */
  readonly rowEntries: Tensor;
  /** u32 `[B + 1]`: where each row starts; the last is the number of entries. */
  readonly rowStart: Tensor;
  /** u32 `[capacity, 2]`: feature and activation. */
  readonly entries: Tensor;
  /** u32 `[capacity / 4]`: row of four entries. */
  readonly entryRows: Tensor;
  /** u32 `[1]`: the branch that is taken. */
  readonly branch: Tensor;
  /** Lets the launches of that branch take place. */
  readonly gate: Gate;
  readonly #owned: DisposableStack;

  /** Takes the memory; `capacity` is a multiple of 4. */
  constructor(
    gpu: Gpu,
    { batch, windows, capacity, tile }: {
      readonly batch: number;
      readonly windows: readonly FeatureWindow[];
      readonly capacity: number;
      readonly tile: number;
    },
  ) {
    using owned = new DisposableStack();
    const own = (
      label: string,
      shape: readonly number[],
      dtype: "u32" | "f32" = "u32",
    ): Tensor => owned.use(gpu.tensor(label, dtype, shape));
    this.capacity = capacity;
    this.tile = tile;
    this.windows = listWindows(windows, tile);
    const nTiles = this.windows.at(-1)!.tile1;
    const binding = gpu.limits.maxStorageBufferBindingSize;
    if (4 * nTiles * batch > binding) {
      throw new RangeError(
        `Cannot train on ${batch} vectors at once: expected at most ${
          Math.floor(binding / (4 * nTiles))
        } with so many features, as the adapter binds ${binding} bytes: take smaller batches`,
      );
    }
    this.tileMasks = own("tile_masks", [nTiles, batch]);
    this.tileSums = own("tile_sums", [nTiles, batch], "f32");
    this.tileStarts = own("tile_starts", [nTiles, batch]);
    this.rowEntries = own("row_entries", [batch]);
    this.rowStart = own("row_start", [batch + 1]);
    this.entries = own("entries", [capacity, 2]);
    this.entryRows = own("entry_rows", [capacity / 4]);
    this.branch = own("branch", [1]);
    this.gate = owned.use(
      new Gate(gpu, LAUNCHES.once + LAUNCHES.perWindow * windows.length),
    );
    this.#owned = owned.move();
  }

  /** Frees the memory. */
  [Symbol.dispose](): void {
    this.#owned.dispose();
  }
}

/** Entries by feature, each feature's in the order of the rows: for gradients of weights. */
export class EntrySort implements Disposable {
  /** f32 `[capacity]`: gradient of each entry, in the order of the lists. */
  readonly dacts: Tensor;
  /** u32 `[d_sae, ⌈B / 32⌉]`: in which rows a feature has entries. */
  readonly bitmap: Tensor;
  /** u32 `[d_sae, 2]`: entries before the feature's in its block, and its own. */
  readonly runs: Tensor;
  /** u32 `[n_blocks]`: where the blocks start. */
  readonly blocks: Tensor;
  /** u32 `[capacity, 4]`: row, activation and gradient. */
  readonly columns: Tensor;
  readonly #owned: DisposableStack;

  /** Takes the memory. */
  constructor(
    gpu: Gpu,
    { batch, d_sae, windows, capacity }: {
      readonly batch: number;
      readonly d_sae: number;
      readonly windows: readonly FeatureWindow[];
      readonly capacity: number;
    },
  ) {
    using owned = new DisposableStack();
    const own = (
      label: string,
      shape: readonly number[],
      dtype: "u32" | "f32" = "u32",
    ): Tensor => owned.use(gpu.tensor(label, dtype, shape));
    const last = listWindows(windows, LARGEST_TILE).at(-1)!;
    this.dacts = own("dacts", [capacity], "f32");
    this.bitmap = own("bitmap", [d_sae, Math.ceil(batch / 32)]);
    this.runs = own("runs", [d_sae, 2]);
    this.blocks = own("blocks", [
      last.block0 + featureBlocks(last.end - last.start),
    ]);
    this.columns = own("columns", [capacity, 4]);
    this.#owned = owned.move();
  }

  /** Frees the memory. */
  [Symbol.dispose](): void {
    this.#owned.dispose();
  }
}

function listWindows(
  windows: readonly FeatureWindow[],
  tile: number,
): ListWindow[] {
  let [tile0, block0] = [0, 0];
  return windows.map(({ start, end }) => {
    const tile1 = tile0 + Math.ceil((end - start) / tile);
    const window = { start, end, tile0, tile1, block0 };
    tile0 = tile1;
    block0 += featureBlocks(end - start);
    return window;
  });
}
