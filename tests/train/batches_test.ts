import {
  deepEqual,
  equal,
  notDeepEqual,
  ok,
  rejects,
  throws,
} from "node:assert/strict";
import { bf16ToF32, f32ToBf16 } from "../../core/dtype.ts";
import {
  ResidualFolder,
  type ResidualManifest,
  ResidualShardWriter,
} from "../../core/residuals.ts";
import { memoryFolder } from "../../core/source.ts";
import {
  Batches,
  type BatchOptions,
  type RowGroups,
  rowGroupsOf,
} from "../../train/batches.ts";
import { assertClose, randomNormal } from "../assert_close.ts";

const D = 3;

/** Groups of rows [i, i + 1, 1] with i counting up, and how often each group was read. */
function countingGroups(
  sizes: number[],
): RowGroups & { readonly reads: number[] } {
  const reads: number[] = [];
  return {
    name: "counting",
    d_model: D,
    sizes,
    reads,
    read(group) {
      reads.push(group);
      const first = sizes.slice(0, group).reduce((sum, n) => sum + n, 0);
      const rows = Array.from({ length: sizes[group]! }, (_, i) => [
        first + i,
        first + i + 1,
        1,
      ]);
      return Promise.resolve(f32ToBf16(Float32Array.from(rows.flat())));
    },
  };
}

const OPTIONS: BatchOptions = {
  batch: 4,
  bufferRows: 1000,
  holdOut: 0,
  seed: 3,
};

/** First elements of the rows of the next batches. */
async function draw(batches: Batches, n: number): Promise<number[][]> {
  const drawn: number[][] = [];
  for (let i = 0; i < n; i++) {
    const rows = bf16ToF32(await batches.next());
    drawn.push([...rows].filter((_, at) => at % D === 0));
  }
  return drawn;
}

Deno.test("Batches.open() measures mean and norm over the vectors that are not held out", async () => {
  const batches = await Batches.open(countingGroups([2, 3, 2]), {
    ...OPTIONS,
    holdOut: 3,
  });
  const { n, mean, meanNorm, variance, inputScale } = batches.statistics;
  equal(n, 4);
  deepEqual([...mean], [1.5, 2.5, 1]);
  const norms = [0, 1, 2, 3].map((i) => Math.hypot(i, i + 1, 1));
  const want = norms.reduce((sum, norm) => sum + norm, 0) / 4;
  assertClose([meanNorm], [want], { rtol: 1e-15, label: "meanNorm" });
  equal(inputScale, Math.sqrt(3) / meanNorm);
  // 0, 1, 2, 3 have a variance of 1.25, in two of the dimensions.
  assertClose([variance], [2.5], { rtol: 1e-14, label: "variance" });
  const heldOut: number[] = [];
  for await (const rows of batches.heldOut()) {
    heldOut.push(...bf16ToF32(rows).filter((_, at) => at % D === 0));
  }
  deepEqual(heldOut, [4, 5, 6]);
  const drawn = (await draw(batches, 100)).flat();
  deepEqual([...new Set(drawn)].sort(), [0, 1, 2, 3]);
});

Deno.test("Batches.next() draws uniformly with replacement when the data fits", async () => {
  const data = countingGroups([7, 1, 8]);
  const batches = await Batches.open(data, OPTIONS);
  const counts = new Array<number>(16).fill(0);
  for (const row of (await draw(batches, 4000)).flat()) counts[row]!++;
  // 16,000 draws over 16 rows; 15 degrees of freedom: beyond 40 in 1 of 2,000 seeds.
  const chi2 = counts.reduce((sum, n) => sum + (n - 1000) ** 2 / 1000, 0);
  ok(chi2 < 40, `chi² ${chi2}: ${counts}`);
  deepEqual(data.reads, [0, 1, 2]);
});

Deno.test("Batches.next() passes all groups through a smaller buffer, once an epoch in a new order", async () => {
  const data = countingGroups(Array<number>(12).fill(8));
  const batches = await Batches.open(data, { ...OPTIONS, bufferRows: 30 });
  data.reads.length = 0;
  const seen = new Set<number>();
  for (let step = 0; step < 72; step++) { // 3 epochs of 96 rows
    for (const row of (await draw(batches, 1)).flat()) seen.add(row);
  }
  // 3 epochs, 3 groups in the buffer, and one ahead.
  ok(Math.abs(data.reads.length - 39) <= 1, `${data.reads.length} reads`);
  const epochs = [0, 1, 2].map((e) => data.reads.slice(12 * e, 12 * e + 12));
  for (const epoch of epochs) {
    deepEqual(epoch.toSorted((a, b) => a - b), [...Array(12).keys()]);
  }
  notDeepEqual(epochs[0], epochs[1]);
  // A row is missed with probability about e⁻³.
  ok(seen.size > 80, `${seen.size} of 96 rows`);
});

Deno.test("Batches.restore() goes on with the same batches, in memory and streaming", async () => {
  for (const bufferRows of [1000, 20]) {
    const options = { ...OPTIONS, bufferRows, holdOut: 5 };
    const sizes = [8, 8, 3, 8, 8, 8, 8];
    const straight = await Batches.open(countingGroups(sizes), options);
    await draw(straight, 17);
    const position = JSON.parse(JSON.stringify(straight.position));
    const rest = await draw(straight, 40);
    const resumed = await Batches.open(countingGroups(sizes), options);
    await draw(resumed, 2);
    resumed.restore(position);
    deepEqual(await draw(resumed, 40), rest, `bufferRows ${bufferRows}`);
    throws(
      () => resumed.restore({ ...position, firstGroup: -1 }),
      /Cannot resume the batches of "counting"/,
    );
  }
});

Deno.test("Batches.open() refuses data that is held out whole, or all zero", async () => {
  await rejects(
    Batches.open(countingGroups([4]), { ...OPTIONS, holdOut: 4 }),
    /expected more than the 4 vectors that are held out: got 4/,
  );
  const zeros = {
    ...countingGroups([2]),
    read: () => Promise.resolve(new Uint16Array(2 * D)),
  };
  await rejects(Batches.open(zeros, OPTIONS), /expected a mean norm above 0/);
});

Deno.test("rowGroupsOf() reads the groups of all shards, and names shard and row of a NaN", async () => {
  const header = {
    modelName: "tiny",
    modelFingerprint: "abc",
    hookPoint: "resid_post[3]",
    dtype: "bf16",
    d_model: D,
  } as const;
  const files: Record<string, Uint8Array> = {};
  const shards: ResidualManifest["shards"][number][] = [];
  const all: number[] = [];
  for (const [s, n_rows] of [5000, 10].entries()) {
    const rows = f32ToBf16(randomNormal(n_rows * D, s + 1));
    all.push(...rows);
    const labels = new Int32Array(n_rows);
    const writer = new ResidualShardWriter(header);
    writer.add({
      n_rows,
      d_model: D,
      rows,
      token_ids: labels,
      positions: labels,
      documents: labels,
    });
    const file = `shard-${s}.parquet`;
    const { bytes, shard } = await writer.finish(file);
    files[file] = bytes;
    shards.push(shard);
  }
  const manifest = {
    kind: "residuals",
    fingerprint: "f",
    formatVersion: 1,
    model: { name: "tiny", fingerprint: "abc", d_model: D, n_layers: 8 },
    hookPoint: "resid_post[3]",
    contextLength: 256,
    text: "storybook:1",
    skipFirst: 1,
    shards,
    n_tokens: 5010,
    n_documents: 2,
    done: true,
  };
  files["manifest.json"] = new TextEncoder().encode(JSON.stringify(manifest));
  const groups = await rowGroupsOf(
    await ResidualFolder.open(memoryFolder("residuals", files)),
  );
  const read: number[] = [];
  for (const group of groups.sizes.keys()) {
    read.push(...await groups.read(group));
  }
  deepEqual(read, all);
  equal(groups.sizes.length, 3);
  // The last row's first element, where the shard stores its bytes.
  const last = f32ToBf16(randomNormal(10 * D, 2)).subarray(9 * D);
  const bytes = files["shard-1.parquet"]!;
  const pattern = new Uint8Array(last.slice().buffer);
  const at = bytes.findIndex((_, i) =>
    pattern.every((byte, k) => bytes[i + k] === byte)
  );
  bytes.set([0xc0, 0x7f], at);
  await rejects(
    Batches.open(groups, OPTIONS),
    /"residuals\/shard-1\.parquet": expected finite values: got bits 0x7fc0 in row 9/,
  );
});
