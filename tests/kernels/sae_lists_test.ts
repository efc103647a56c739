import { deepEqual, equal, ok } from "node:assert/strict";
import { openGate } from "../../kernels/open_gate.ts";
import { saeDeadTiles } from "../../kernels/sae_dead_tiles.ts";
import { saeEntries } from "../../kernels/sae_entries.ts";
import { saePath } from "../../kernels/sae_path.ts";
import { rowParts, saeRows } from "../../kernels/sae_rows.ts";
import { saeTiles } from "../../kernels/sae_tiles.ts";
import { assertClose } from "../assert_close.ts";
import {
  columnsOf,
  type EntryCase,
  entryCase,
  ints,
  listsOf,
  ODD,
  POISON,
  poisonedWords,
  rowsOf,
} from "./entry_cases.ts";
import { launchAll } from "./launch_all.ts";
import { floats, poisoned, seededTest, words } from "./run_kernel.ts";

/** Acts of each window. */
function partsOf({ acts, d_sae, windows, B }: EntryCase) {
  return windows.map((window) =>
    floats([B, window.end - window.start], columnsOf(acts, d_sae, window))
  );
}

for (const [width, counts] of [[32, 0], [24, 1]] as const) {
  seededTest(
    `sae_tiles marks what is not 0 by bits in tiles of ${width}, and adds up ${
      counts ? "how many are above 0" : "weighted acts"
    }`,
    async (draw) => {
      const c = entryCase(draw, { ...ODD, width });
      const { B, d_sae, nTiles, acts } = c;
      const weights = draw(d_sae);
      const parts = partsOf(c);
      // A tile more at either end must stay as it is.
      const shape = [nTiles + 2, B];
      const { tile_masks, tile_sums } = await launchAll(
        saeTiles,
        {
          tile_masks: poisonedWords(shape),
          tile_sums: poisoned(shape),
        },
        c.windows.map((window, w) => ({
          tensors: {
            acts: parts[w]!,
            weights: floats(
              [window.end - window.start],
              rowsOf(weights, 1, window),
            ),
          },
          values: { width, tile0: window.tile0 + 1, counts },
        })),
      );
      const edge = new Array(B).fill(POISON);
      deepEqual(
        [...tile_masks.ints],
        [...edge, ...listsOf(c).masks, ...edge],
      );
      const sums = new Float64Array(nTiles * B);
      for (const { start, end, tile0 } of c.windows) {
        for (let b = 0; b < B; b++) {
          for (let i = start; i < end; i++) {
            const act = acts[b * d_sae + i]!;
            const tile = tile0 + Math.floor((i - start) / width);
            sums[tile * B + b]! += counts ? Number(act > 0) : act * weights[i]!;
          }
        }
      }
      // 32 terms of size 1 at most.
      const close = { atol: counts ? 0 : 1e-5, label: "tile_sums" };
      assertClose(tile_sums.floats.slice(B, -B), sums, close);
      ok(
        [...tile_sums.floats.slice(0, B), ...tile_sums.floats.slice(-B)].every(
          Number.isNaN,
        ),
      );
    },
  );
}

seededTest(
  "sae_tiles marks NaN and infinity, and lets them into its sums",
  async (draw) => {
    const acts = draw(3 * 40).fill(0);
    acts[3] = NaN;
    acts[40 + 33] = Infinity;
    acts[80 + 39] = -Infinity;
    const { tile_masks, tile_sums } = await launchAll(saeTiles, {
      acts: floats([3, 40], acts),
      weights: floats([40], draw(40).fill(1)),
      tile_masks: poisonedWords([2, 3]),
      tile_sums: poisoned([2, 3]),
    }, [{ values: { width: 32, tile0: 0, counts: 0 } }]);
    deepEqual([...tile_masks.ints], [8, 0, 0, 0, 2, 128]);
    deepEqual([...tile_sums.floats], [NaN, 0, 0, 0, Infinity, -Infinity]);
  },
);

seededTest(
  "sae_dead_tiles marks what is at or above its row's threshold, of features that have waited",
  async (draw) => {
    const c = entryCase(draw, ODD);
    const { B, d_sae, nTiles, width, acts } = c;
    const least = 1000;
    const waited = Uint32Array.from(
      draw(d_sae),
      (v) => v > 0 ? least : least - 1,
    );
    // Some thresholds are an act of the row; 0 and -0 are never entries, infinity and NaN always.
    const thresholds = new Uint32Array(2 * B);
    const bits = new Uint32Array(acts.buffer);
    for (let b = 0; b < B; b++) {
      thresholds[2 * b] = b % 3 === 0 ? 0 : bits[b * d_sae + 7]!;
      thresholds[2 * b + 1] = POISON;
    }
    acts[3 * d_sae + 11] = Infinity;
    acts[4 * d_sae + 12] = NaN;
    waited[11] = waited[12] = waited[7] = 2 ** 32 - 1;
    const kept = acts.map((act, at) => {
      const threshold = new Float32Array(
        thresholds.buffer,
      )[2 * Math.floor(at / d_sae)]!;
      const isEntry = waited[at % d_sae]! >= least &&
        (Number.isNaN(act) || (act > 0 && act >= threshold));
      return isEntry ? act : 0;
    });
    const parts = partsOf(c);
    const shape = [nTiles + 1, B];
    const { tile_masks, tile_sums } = await launchAll(
      saeDeadTiles,
      {
        thresholds: ints([B, 2], thresholds),
        tile_masks: poisonedWords(shape),
        tile_sums: poisoned(shape),
      },
      c.windows.map((window, w) => ({
        tensors: {
          acts: parts[w]!,
          waited: ints([window.end - window.start], rowsOf(waited, 1, window)),
        },
        values: { width, tile0: window.tile0 + 1, dead_after: least },
      })),
    );
    const want = listsOf({ ...c, acts: kept });
    ok(want.rowEntries.some((n) => n > 0));
    deepEqual([...tile_masks.ints.slice(B)], [...want.masks]);
    ok(tile_sums.floats.slice(B).every((sum) => sum === 0));
    deepEqual([tile_masks.ints[0], tile_sums.floats[0]], [POISON, NaN]);
  },
);

seededTest(
  "sae_rows counts each row's entries, those before each tile, and leaves parts of the sums in its slots",
  async (draw) => {
    const c = entryCase(draw, ODD);
    const { B, nTiles } = c;
    const lists = listsOf(c);
    const sums = draw(nTiles * B);
    const n = rowParts(B);
    const { tile_starts, row_entries, partials } = await launchAll(saeRows, {
      tile_masks: ints([nTiles, B], lists.masks),
      tile_sums: floats([nTiles, B], sums),
      tile_starts: poisonedWords([nTiles, B]),
      row_entries: poisonedWords([B]),
      partials: poisoned([n + 3, 4]),
    }, [{ values: { slot: 2 } }]);
    deepEqual([...tile_starts.ints], [...lists.starts]);
    deepEqual([...row_entries.ints], [...lists.rowEntries]);
    const rows = partials.floats;
    deepEqual([rows[7], rows[4 * (n + 2)]], [NaN, NaN]);
    for (let w = 0; w < n; w++) {
      const isOf = (b: number): boolean => Math.floor(b / 64) === w;
      const total = sums.reduce(
        (sum, v, at) => sum + (isOf(at % B) ? v : 0),
        0,
      );
      const entries = lists.rowEntries.reduce(
        (sum, v, b) => sum + (isOf(b) ? v : 0),
        0,
      );
      const [x, y, z, count] = rows.slice(4 * (w + 2), 4 * (w + 3));
      deepEqual([x, y, count], [0, 0, entries]);
      // 64 rows of 23 tiles of size 1: partial sums up to 150.
      assertClose([z!], [total], { atol: 1e-3, label: `part ${w}` });
    }
  },
);

for (const B of [1, 64, 131, 700]) {
  seededTest(
    `sae_path finds where ${B} rows start, and takes the sparse path up to its limit`,
    async (draw) => {
      const counts = Uint32Array.from(
        draw(B, 40),
        (v, b) => b % 5 === 4 ? 0 : Math.floor(Math.abs(v)) + b % 2,
      );
      const starts = new Uint32Array(B + 1);
      for (let b = 0; b < B; b++) {
        starts[b + 1] = starts[b]! + Math.ceil(counts[b]! / 4) * 4;
      }
      const total = starts[B]!;
      for (
        const [limit, branch] of [[total + 1, 1], [total, 0], [0, 0]] as const
      ) {
        const got = await launchAll(saePath, {
          row_entries: ints([B], counts),
          row_start: poisonedWords([B + 1]),
          branch: poisonedWords([1]),
        }, [{ values: { limit } }]);
        deepEqual([...got.row_start.ints], [...starts]);
        deepEqual([...got.branch.ints], [branch]);
      }
    },
  );
}

Deno.test("sae_path takes the dense path where entries are too many to count in 32 bits", async () => {
  // As 1,048,576 features that fire in each of 4,096 rows, and then in twice as many.
  for (const B of [4096, 4097, 8192]) {
    const { branch } = await launchAll(saePath, {
      row_entries: ints([B], new Uint32Array(B).fill(2 ** 20)),
      row_start: poisonedWords([B + 1]),
      branch: poisonedWords([1]),
    }, [{ values: { limit: 2 ** 28 + 1 } }]);
    equal(branch.ints[0], 0, `${B} rows`);
  }
});

Deno.test("open_gate allows the launches of its branch, and as many workgroups as items take", async () => {
  const wanted = Uint32Array.from([
    ...[7, 8, 9, 0],
    ...[3, 1, 1, 1],
    ...[64, 0, 0, 1], // items of a workgroup
    ...[1, 0, 0, 1],
    ...[4, 0, 0, 0],
    ...[0, 0, 0, 0], // not recorded
  ]);
  const n = wanted.length / 4;
  const open = async (branch: number, count: number): Promise<number[][]> => {
    const { allowed } = await launchAll(openGate, {
      branch: words([1], [branch]),
      counts: words([3], [99, 99, count]),
      wanted: ints([n, 4], wanted),
      allowed: poisonedWords([n, 4]),
    }, [{}]);
    return Array.from(
      { length: n },
      (_, i) => [...allowed.ints.slice(4 * i, 4 * i + 3)],
    );
  };
  const none = [0, 0, 0];
  deepEqual(await open(0, 9), [[7, 8, 9], none, none, none, [3, 1, 1], none]);
  deepEqual(await open(1, 65), [
    none,
    [3, 1, 1],
    [2, 1, 1],
    [65, 1, 1],
    none,
    none,
  ]);
  // 65,535 in a row are the most; one more takes a second row.
  deepEqual((await open(1, 65_535))[3], [65_535, 1, 1]);
  deepEqual((await open(1, 65_536))[3], [65_535, 2, 1]);
  const [, , items, ones] = await open(1, 0);
  equal(items![0]! * items![1]! * items![2]!, 0);
  equal(ones![0]! * ones![1]! * ones![2]!, 0);
});

Deno.test("open_gate decides for more launches than a workgroup has invocations", async () => {
  const n = 131;
  const wanted = Uint32Array.from(
    { length: 4 * n },
    (_, at) => at % 4 === 3 ? Math.floor(at / 4) % 2 : at + 1,
  );
  const { allowed } = await launchAll(openGate, {
    branch: words([1], [1]),
    counts: words([1], [5]),
    wanted: ints([n, 4], wanted),
    allowed: poisonedWords([n, 4]),
  }, [{}]);
  const isTaken = (at: number): boolean => Math.floor(at / 4) % 2 === 1;
  const places = [...wanted.keys()].filter((at) => at % 4 !== 3);
  deepEqual(
    places.map((at) => allowed.ints[at]),
    places.map((at) => isTaken(at) ? wanted[at] : 0),
  );
});

for (const width of [32, 24]) {
  seededTest(
    `sae_entries lists rows in the order of features, filled up to multiples of 4, in tiles of ${width}`,
    async (draw) => {
      const c = entryCase(draw, { ...ODD, width });
      const { B, nTiles } = c;
      c.acts[5 * c.d_sae + 3] = NaN;
      c.acts[6 * c.d_sae + 320] = Infinity;
      const lists = listsOf(c);
      const total = lists.rowStart[B]!;
      const parts = partsOf(c);
      // Room for eight entries more, which must stay as they are.
      const { entries, entry_rows } = await launchAll(
        saeEntries,
        {
          tile_masks: ints([nTiles, B], lists.masks),
          tile_starts: ints([nTiles, B], lists.starts),
          row_start: ints([B + 1], lists.rowStart),
          entries: poisonedWords([total + 8, 2]),
          entry_rows: poisonedWords([total / 4 + 2]),
        },
        c.windows.map(({ tile0, start }, w) => ({
          tensors: { acts: parts[w]! },
          values: { width, tile0, start },
        })),
      );
      deepEqual(
        [...entries.ints],
        [...lists.entries, ...new Array(16).fill(POISON)],
      );
      deepEqual([...entry_rows.ints], [...lists.entryRows, POISON, POISON]);
    },
  );
}
