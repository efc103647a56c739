import {
  deepEqual,
  equal,
  notDeepEqual,
  ok,
  rejects,
  throws,
} from "node:assert/strict";
import { bf16ToF32, f32ToBf16 } from "../../core/dtype.ts";
import { ResidualFolder } from "../../core/residuals.ts";
import { memoryFolder } from "../../core/source.ts";
import {
  Batches,
  type BatchOptions,
  type RowGroups,
  rowGroupsOf,
  SAMPLE_ROWS,
} from "../../train/batches.ts";
import { NONE_DROPPED } from "../../train/row_filter.ts";
import { assertClose } from "../assert_close.ts";
import { rejectsInOneLine } from "../rejects_in_one_line.ts";
import { damageRow, MADE_D, madeFolder, madeRows } from "./made_residuals.ts";

const D = MADE_D;

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
  const files = madeFolder({ shards: [5000, 10] });
  const groups = await rowGroupsOf(
    await ResidualFolder.open(memoryFolder("residuals", files)),
  );
  const read: number[] = [];
  for (const group of groups.sizes.keys()) {
    read.push(...await groups.read(group));
  }
  deepEqual(read, [...madeRows(0, 5000), ...madeRows(1, 10)]);
  deepEqual([...await groups.tokens!(1) ?? []].slice(0, 2), [4096, 4097]);
  equal(groups.sizes.length, 3);
  const last = madeRows(1, 10).subarray(9 * D);
  damageRow(files["shard-1.parquet"]!, last, 0x7fc0);
  await rejects(
    Batches.open(groups, OPTIONS),
    /"residuals\/shard-1\.parquet": expected finite values: got bits 0x7fc0 in row 9/,
  );
  const skipping = { ...OPTIONS, bufferRows: 10_000, skipBadRows: true };
  const batches = await Batches.open(groups, skipping);
  equal(batches.statistics.n, 5009);
  deepEqual(batches.dropped, { ...NONE_DROPPED, badRows: 1 });
});

/** Groups whose rows are far longer at some places, with token ids that count up. */
function withOutliers(
  sizes: number[],
  isLong: (row: number) => boolean,
): RowGroups & { readonly reads: number[] } {
  const groups = countingGroups(sizes);
  const firstOf = (group: number): number =>
    sizes.slice(0, group).reduce((sum, n) => sum + n, 0);
  return {
    ...groups,
    async read(group) {
      const values = bf16ToF32(await groups.read(group));
      for (let row = 0; row < sizes[group]!; row++) {
        if (isLong(firstOf(group) + row)) values[row * D + 2] = 1e6;
      }
      return f32ToBf16(values);
    },
    tokens: (group) =>
      Promise.resolve(
        Int32Array.from(
          { length: sizes[group]! },
          (_, i) => firstOf(group) + i,
        ),
      ),
  };
}

Deno.test("Batches leaves out long vectors, tokens and held-out ones alike, in memory and streaming", async () => {
  const sizes = [8, 8, 3, 8, 8, 8, 7];
  const isLong = (row: number): boolean => row % 10 === 4;
  const skipTokens = [0, 17, 49];
  const isKept = (row: number): boolean =>
    !isLong(row) && !skipTokens.includes(row);
  const kept = [...Array(50).keys()].filter(isKept);
  for (const bufferRows of [1000, 20]) {
    const options = { ...OPTIONS, bufferRows, holdOut: 4 };
    const data = withOutliers(sizes, isLong);
    const batches = await Batches.open(data, {
      ...options,
      maxNorm: 100,
      skipTokens,
    });
    const trained = kept.filter((row) => row < 46);
    equal(batches.statistics.n, trained.length);
    const mean = trained.reduce((sum, row) => sum + row, 0) / trained.length;
    assertClose([batches.statistics.mean[0]!], [mean], {
      rtol: 1e-12,
      label: "mean",
    });
    const drawn = (await draw(batches, 200)).flat();
    deepEqual(
      [...new Set(drawn)].sort((a, b) => a - b),
      trained,
      `bufferRows ${bufferRows}`,
    );
    // Counted once, though every group was read many times.
    deepEqual(batches.dropped, { badRows: 0, highNorm: 5, skippedTokens: 2 });
    const held: number[] = [];
    for await (const rows of batches.heldOut()) {
      held.push(...bf16ToF32(rows).filter((_, at) => at % D === 0));
    }
    deepEqual(held, [46, 47, 48]);
    const position = structuredClone(batches.position);
    const rest = await draw(batches, 40);
    const resumed = await Batches.open(data, {
      ...options,
      maxNorm: 100,
      skipTokens,
    });
    resumed.restore(position);
    deepEqual(await draw(resumed, 40), rest);
  }
});

Deno.test("Batches draws the same rows with filters that leave nothing out as without", async () => {
  for (const bufferRows of [1000, 20]) {
    const options = { ...OPTIONS, bufferRows };
    const sizes = [8, 8, 3, 8, 8];
    const data = withOutliers(sizes, () => false);
    const plain = await Batches.open(data, options);
    const filtered = await Batches.open(data, {
      ...options,
      maxNorm: 100,
      skipTokens: [999],
      skipBadRows: true,
    });
    deepEqual(filtered.statistics, plain.statistics);
    deepEqual(await draw(filtered, 50), await draw(plain, 50));
    deepEqual(filtered.dropped, NONE_DROPPED);
  }
});

Deno.test("Batches.open() measures data that does not fit on a sample of its groups, the same for the same seed", async () => {
  const sizes = Array<number>(40).fill(SAMPLE_ROWS / 16);
  const data = {
    ...countingGroups(sizes),
    // Rows of one value a group, which bf16 has.
    read(group: number): Promise<Uint16Array<ArrayBuffer>> {
      data.reads.push(group);
      const value = f32ToBf16(Float32Array.of(group + 1))[0]!;
      return Promise.resolve(new Uint16Array(sizes[group]! * D).fill(value));
    },
  };
  const options = { ...OPTIONS, bufferRows: 40_000 };
  const one = await Batches.open(data, options);
  const sample = data.reads.splice(0);
  equal(sample.length, 16);
  deepEqual(sample, [...new Set(sample)].sort((a, b) => a - b));
  notDeepEqual(sample, [...Array(16).keys()]);
  equal(one.statistics.n, 40 * sizes[0]!);
  equal(one.statistics.nMeasured, SAMPLE_ROWS);
  const mean = sample.reduce((sum, group) => sum + group + 1, 0) / 16;
  equal(one.statistics.mean[0], mean);
  const two = await Batches.open(data, options);
  deepEqual(two.statistics, one.statistics);
  deepEqual(data.reads.splice(0), sample);
  await Batches.open(data, { ...options, seed: 4 });
  notDeepEqual(data.reads.splice(0), sample);
  // A larger buffer is room for a larger sample.
  await Batches.open(data, { ...options, bufferRows: 20 * sizes[0]! });
  equal(data.reads.length, 20);
});

Deno.test("Batches mixes shards and documents in every batch, and holds no more than its buffer and a group", async () => {
  // Four documents of two rows a group, four groups a shard.
  const sizes = Array<number>(80).fill(8);
  const data = countingGroups(sizes);
  const batches = await Batches.open(data, {
    ...OPTIONS,
    batch: 32,
    bufferRows: 200,
  });
  data.reads.length = 0;
  for (let i = 1; i <= 60; i++) {
    const rows = (await draw(batches, 1)).flat();
    const shards = new Set(rows.map((row) => Math.floor(row / 32)));
    const documents = new Set(rows.map((row) => Math.floor(row / 2)));
    // 25 of 80 groups at a time: of 20 shards, about 14 are among 32 rows.
    ok(shards.size >= 7, `batch ${i}: ${shards.size} shards`);
    ok(documents.size >= 20, `batch ${i}: ${documents.size} documents`);
    // Groups that were dropped: one for each eight rows drawn.
    const inMemory = data.reads.length - Math.floor(32 * (i - 1) / 8);
    ok(inMemory <= 26, `batch ${i}: ${inMemory} groups of 8`);
  }
});

Deno.test("Batches works with groups larger than its buffer, and batches larger than that, and passes no group over", async () => {
  const sizes = [20, 30, 25];
  const data = countingGroups(sizes);
  const batches = await Batches.open(data, {
    ...OPTIONS,
    batch: 64,
    bufferRows: 10,
  });
  const groupsOf = (rows: number[]): number[] => [
    ...new Set(rows.map((row) => row < 20 ? 0 : row < 50 ? 1 : 2)),
  ];
  for (let epoch = 0; epoch < 5; epoch++) {
    const drawn = await draw(batches, 3);
    const groups = drawn.flatMap(groupsOf);
    deepEqual(groups.toSorted(), [0, 1, 2]);
  }
  const position = structuredClone(batches.position);
  const rest = await draw(batches, 5);
  const resumed = await Batches.open(data, {
    ...OPTIONS,
    batch: 64,
    bufferRows: 10,
  });
  resumed.restore(position);
  deepEqual(await draw(resumed, 5), rest);
});

Deno.test("Batches.open() refuses fewer vectors than a batch, filters that leave none, and skipped tokens without ids", async () => {
  await rejectsInOneLine(
    () => Batches.open(countingGroups([5, 6]), { ...OPTIONS, batch: 12 }),
    /^RangeError: Cannot train on "counting": expected at least 12 vectors, a batch: got 11 \(left out: 0 not finite/,
  );
  const data = withOutliers([5, 6], () => false);
  const all = [...Array(11).keys()];
  await rejectsInOneLine(
    () => Batches.open(data, { ...OPTIONS, skipTokens: all.slice(0, 8) }),
    /expected at least 4 vectors, a batch: got 3 \(left out: 0 not finite, 8 of skipped tokens, 0 of a high norm\)/,
  );
  await rejectsInOneLine(
    () => Batches.open(data, { ...OPTIONS, skipTokens: all }),
    /^RangeError: Cannot train on "counting": expected vectors to draw from: got none \(.* 11 of skipped tokens/,
  );
  await rejectsInOneLine(
    () => Batches.open(countingGroups([9]), { ...OPTIONS, skipTokens: [1] }),
    /^TypeError: Cannot leave out tokens of "counting": expected shards that say which token/,
  );
});

Deno.test("Batches goes on past groups of which nothing is kept", async () => {
  const data = withOutliers(Array<number>(9).fill(6), () => false);
  const isKept = (row: number): boolean => row >= 24 && row < 30;
  const tokens = [...Array(54).keys()];
  const batches = await Batches.open(data, {
    ...OPTIONS,
    bufferRows: 12,
    skipTokens: tokens.filter((row) => !isKept(row)),
  });
  const drawn = (await draw(batches, 30)).flat();
  ok(drawn.every(isKept), `${drawn}`);
});

Deno.test("Batches.open() refuses damaged folders: rows of another width, a shard that was cut off", async () => {
  const open = async (files: Record<string, Uint8Array>) =>
    await Batches.open(
      await rowGroupsOf(
        await ResidualFolder.open(memoryFolder("residuals", files)),
      ),
      OPTIONS,
    );
  const files = madeFolder({ shards: [100, 100] });
  const wide = madeFolder({ shards: [100, 100], d_model: 5 });
  const edited = (file: string, bytes: Uint8Array) => {
    const manifest = JSON.parse(
      new TextDecoder().decode(files["manifest.json"]),
    );
    const at = file === "shard-0.parquet" ? 0 : 1;
    manifest.shards[at].bytes = bytes.length;
    const json = new TextEncoder().encode(JSON.stringify(manifest));
    return { ...files, [file]: bytes, "manifest.json": json };
  };
  await rejectsInOneLine(
    () => open(edited("shard-1.parquet", wide["shard-1.parquet"]!)),
    /^RangeError: Cannot read "residuals\/shard-1\.parquet": expected d_model 3 by manifest\.json: got 5/,
  );
  const cut = files["shard-1.parquet"]!.slice(0, 700);
  await rejectsInOneLine(
    () => open({ ...files, "shard-1.parquet": cut }),
    /^RangeError: Cannot read "residuals\/shard-1\.parquet": expected \d+ bytes by manifest\.json: got 700/,
  );
  await rejectsInOneLine(
    () => open(edited("shard-1.parquet", cut)),
    /^SyntaxError: Cannot read "residuals\/shard-1\.parquet": expected a parquet file: .*truncated/,
  );
  // Cut out of the middle, with the footer at its end.
  const whole = files["shard-1.parquet"]!;
  const middle = Uint8Array.from([
    ...whole.subarray(0, 300),
    ...whole.subarray(700),
  ]);
  await rejectsInOneLine(
    () => open(edited("shard-1.parquet", middle)),
    /^(SyntaxError|RangeError): Cannot read "residuals\/shard-1\.parquet": /,
  );
});
