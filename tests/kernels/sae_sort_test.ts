import { deepEqual } from "node:assert/strict";
import { saeBlockStarts } from "../../kernels/sae_block_starts.ts";
import {
  featureBlocks,
  saeFeatureRuns,
} from "../../kernels/sae_feature_runs.ts";
import { saeMarkEntries } from "../../kernels/sae_mark_entries.ts";
import { saeSortEntries } from "../../kernels/sae_sort_entries.ts";
import {
  columnTensor,
  entryCase,
  ints,
  listsOf,
  listTensors,
  ODD,
  POISON,
  poisonedWords,
  rowsOf,
  sizeOf,
  sortOf,
  startsOf,
} from "./entry_cases.ts";
import { launchAll } from "./launch_all.ts";
import { floats, seededTest } from "./run_kernel.ts";

seededTest(
  "sae_mark_entries sets the bit of each entry's row and no other",
  async (draw) => {
    const c = entryCase(draw, ODD);
    const lists = listsOf(c);
    const { bitmap, words } = sortOf(c, lists);
    for (const window of c.windows) {
      const got = await launchAll(saeMarkEntries, {
        ...listTensors(lists),
        bitmap: ints(
          [sizeOf(window), words],
          new Uint32Array(sizeOf(window) * words),
        ),
      }, [{ values: { start: window.start } }]);
      deepEqual([...got.bitmap.ints], [...rowsOf(bitmap, words, window)]);
    }
  },
);

seededTest(
  "sae_feature_runs counts entries of features and blocks",
  async (draw) => {
    const c = entryCase(draw, ODD);
    const { bitmap, words, runs, blockCounts } = sortOf(c, listsOf(c));
    for (const window of c.windows) {
      const got = await launchAll(saeFeatureRuns, {
        bitmap: ints([sizeOf(window), words], rowsOf(bitmap, words, window)),
        runs: poisonedWords([sizeOf(window), 2]),
        blocks: poisonedWords([c.nBlocks]),
      }, [{ values: { block0: window.block0 } }]);
      deepEqual([...got.runs.ints], [...rowsOf(runs, 2, window)]);
      const isOwn = (block: number): boolean =>
        block >= window.block0 &&
        block < window.block0 + featureBlocks(sizeOf(window));
      deepEqual(
        [...got.blocks.ints],
        Array.from(blockCounts, (n, block) => isOwn(block) ? n : POISON),
      );
    }
  },
);

for (const n of [1, 64, 65, 4096 + 3]) {
  seededTest(`sae_block_starts adds up ${n} blocks in place`, async (draw) => {
    const counts = Uint32Array.from(draw(n, 1000), (v) => Math.max(0, v));
    const { blocks } = await launchAll(saeBlockStarts, {
      blocks: ints([n], counts),
    }, [{}]);
    deepEqual([...blocks.ints], [...startsOf(counts)]);
  });
}

seededTest(
  "sae_sort_entries puts entries in the order of features and rows",
  async (draw) => {
    const c = entryCase(draw, ODD);
    const lists = listsOf(c);
    const sort = sortOf(c, lists);
    const total = lists.rowStart[c.B]!;
    const dacts = draw(total);
    const { columns } = await launchAll(
      saeSortEntries,
      {
        ...listTensors(lists),
        dacts: floats([total], dacts),
        blocks: ints([c.nBlocks], sort.blocks),
        columns: poisonedWords([sort.order.length + 3, 4]),
      },
      c.windows.map((window) => ({
        tensors: {
          bitmap: ints(
            [sizeOf(window), sort.words],
            rowsOf(sort.bitmap, sort.words, window),
          ),
          runs: ints([sizeOf(window), 2], rowsOf(sort.runs, 2, window)),
        },
        values: { start: window.start, block0: window.block0 },
      })),
    );
    const rest = new Array(12).fill(POISON);
    deepEqual([...columns.ints], [
      ...columnTensor(lists, sort, dacts).values,
      ...rest,
    ]);
  },
);
