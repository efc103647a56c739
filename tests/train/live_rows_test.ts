import { deepEqual, equal, notEqual, ok } from "node:assert/strict";
import { bf16ToF32 } from "../../core/dtype.ts";
import { directory } from "../../core/files.ts";
import { openModelFolder } from "../../core/model_folder.ts";
import { ResidualFolder, type ResidualRows } from "../../core/residuals.ts";
import { Rng } from "../../core/rng.ts";
import { memoryFolder } from "../../core/source.ts";
import type { Gpu } from "../../gpu/mod.ts";
import type { BatchOnGpu, BatchOptions } from "../../train/batch_source.ts";
import { collectResiduals } from "../../train/collect.ts";
import { geometricMedian } from "../../train/geometric_median.ts";
import { LiveRows, type LiveRowsOptions } from "../../train/live_rows.ts";
import { ResidualReader } from "../../train/residual_reader.ts";
import { medianOf, rowNormsOf } from "../../train/row_filter.ts";
import { RowSums } from "../../train/row_sums.ts";
import { testGpu } from "../gpu_for_tests.ts";
import { rejectsInOneLine } from "../rejects_in_one_line.ts";
import { memoryStore } from "./memory_store.ts";
import { story } from "./numbered.ts";

const MODEL = new URL("../../models/tiny-olmo2", import.meta.url).pathname;
const TEXT = "storybook:101:12";
const D = 192;
const PASS = {
  contextLength: 48,
  tokensPerPass: 100,
  pack: false,
  separator: true,
  skipFirst: 1,
  skipTokens: new Set<number>(),
} as const;
const READ = await story(TEXT);

const BATCHES: BatchOptions = {
  batch: 24,
  bufferRows: 10_000,
  holdOut: 0,
  seed: 3,
};

async function openReader(gpu: Gpu): Promise<ResidualReader> {
  const model = await openModelFolder(directory(MODEL));
  return await ResidualReader.load(gpu, model, {
    hookPoint: "resid_post[2]",
    maxTokens: 100,
  });
}

function options(
  gpu: Gpu,
  reader: ResidualReader,
  batches: Partial<BatchOptions> = {},
  others: Partial<LiveRowsOptions> = {},
): LiveRowsOptions {
  return {
    gpu,
    reader,
    text: TEXT,
    read: READ,
    ...PASS,
    batches: { ...BATCHES, ...batches },
    ...others,
  };
}

/** The same vectors as collecting stores them, in one. */
async function collected(
  reader: ResidualReader,
  skipFirst: number = PASS.skipFirst,
): Promise<Required<ResidualRows>> {
  const files: Record<string, Uint8Array> = {};
  await collectResiduals({
    reader,
    config: {
      ...PASS,
      skipFirst,
      modelName: "tiny",
      text: TEXT,
      layout: "binary",
      shardRows: 4096,
    },
    read: READ,
    store: memoryStore(files),
    fingerprint: "f",
  });
  const folder = await ResidualFolder.open(memoryFolder("r", files));
  const shard = await folder.shard(0);
  return await shard.read(0) as Required<ResidualRows>;
}

async function filled(
  gpu: Gpu,
  batch: BatchOnGpu,
  scale = 1,
): Promise<Float32Array<ArrayBuffer>> {
  using x = gpu.tensor("x", "f32", [BATCHES.batch, D]);
  gpu.record("fill", (rec) => batch.fill(rec, x, scale));
  return await gpu.read(x);
}

/** The next batches, unscaled. */
async function draw(
  gpu: Gpu,
  live: LiveRows,
  n: number,
): Promise<Float32Array<ArrayBuffer>[]> {
  const drawn: Float32Array<ArrayBuffer>[] = [];
  for (let i = 0; i < n; i++) drawn.push(await filled(gpu, await live.next()));
  return drawn;
}

/** Their bits as text, which compares faster than arrays do. */
function textOf(batches: readonly Float32Array<ArrayBuffer>[]): string[] {
  return batches.map(({ buffer }) => new Uint8Array(buffer).toBase64());
}

/** Row of `rows` that a drawn row is, or -1. */
function indexOf(rows: Float32Array, row: Float32Array): number {
  for (let at = 0; at < rows.length; at += D) {
    if (row.every((value, j) => value === rows[at + j])) return at / D;
  }
  return -1;
}

/** The bits of some rows. */
function bitsOf(all: Uint16Array, rows: readonly number[]): number[] {
  return rows.flatMap((row) => [...all.subarray(row * D, (row + 1) * D)]);
}

/** Which of some rows a batch is made of. */
function indices(batch: Float32Array, rows: Float32Array): number[] {
  return Array.from(
    { length: BATCHES.batch },
    (_, b) => indexOf(rows, batch.subarray(b * D, (b + 1) * D)),
  );
}

Deno.test("LiveRows draws what collecting stores, bit for bit, and measures it", async () => {
  const gpu = await testGpu();
  using reader = await openReader(gpu);
  const { rows, n_rows } = await collected(reader);
  using live = await LiveRows.open(options(gpu, reader, { init: "median" }));
  const sums = new RowSums(D);
  sums.add(rows);
  const { n, mean, meanNorm, variance, median } = live.statistics;
  equal(n, n_rows);
  equal(meanNorm, sums.meanNorm);
  deepEqual(mean, sums.mean());
  equal(variance, sums.variance());
  deepEqual(median, geometricMedian(rows, D));
  const values = bf16ToF32(rows);
  const draws = new Rng(BATCHES.seed).fork("batches");
  const scale = Math.fround(0.3);
  for (let i = 0; i < 5; i++) {
    const got = await filled(gpu, await live.next(), scale);
    const want = Float32Array.from({ length: got.length });
    for (let b = 0; b < BATCHES.batch; b++) {
      const row = draws.below(n_rows);
      for (let j = 0; j < D; j++) {
        want[b * D + j] = scale * values[row * D + j]!;
      }
    }
    deepEqual(got, want);
  }
});

Deno.test("LiveRows sends a text through a smaller reservoir, over and over, and mixes documents", async () => {
  const gpu = await testGpu();
  using reader = await openReader(gpu);
  const { rows, n_rows, documents } = await collected(reader);
  const values = bf16ToF32(rows);
  const bufferRows = 250;
  ok(bufferRows < n_rows - 100, `${n_rows} rows`);
  using live = await LiveRows.open(options(gpu, reader, { bufferRows }));
  const seen = new Set<number>();
  const nBatches = Math.ceil(3 * n_rows / BATCHES.batch);
  for (const [i, batch] of (await draw(gpu, live, nBatches)).entries()) {
    const drawn = indices(batch, values);
    ok(drawn.every((row) => row >= 0), "every row is one of the text");
    for (const row of drawn) seen.add(row);
    const mixed = new Set(drawn.map((row) => documents[row]));
    if (i === 0) ok(mixed.size > 3, `${mixed.size} documents`);
  }
  // Drawn once an epoch on average, a row is missed with probability about e⁻³.
  ok(seen.size > 0.85 * n_rows, `${seen.size} of ${n_rows} rows`);
});

Deno.test("LiveRows.restore() runs the model again, and goes on bit for bit", async () => {
  const gpu = await testGpu();
  using reader = await openReader(gpu);
  // In the first epoch, beyond it with a pass at a time, and with all in memory.
  for (
    const [bufferRows, nBefore, pack] of [
      [250, 9, false],
      [60, 40, true],
      [10_000, 9, false],
    ] as const
  ) {
    const text = { pack, skipTokens: new Set(pack ? [0] : []) };
    const batches = { bufferRows, holdOut: 30, maxNorm: 1.1 };
    using straight = await LiveRows.open(options(gpu, reader, batches, text));
    await draw(gpu, straight, nBefore);
    // Batches that are accumulated are all drawn before the first is used.
    const early = await straight.next();
    const position = JSON.parse(JSON.stringify(straight.position));
    const rest = textOf(await draw(gpu, straight, 15));
    const late = await filled(gpu, early);
    using resumed = await LiveRows.open(options(gpu, reader, batches, text));
    deepEqual(resumed.statistics, straight.statistics);
    await draw(gpu, resumed, 3);
    await resumed.restore(position);
    deepEqual(resumed.position, position);
    const went = textOf(await draw(gpu, resumed, 15));
    deepEqual(went, rest, `bufferRows ${bufferRows}, pack ${pack}`);
    notEqual(rest[0], rest[1]);
    await resumed.restore(position);
    deepEqual(textOf(await draw(gpu, resumed, 15)), rest);
    // The early batch, drawn again from where it was drawn.
    using again = await LiveRows.open(options(gpu, reader, batches, text));
    await draw(gpu, again, nBefore);
    deepEqual(textOf([late]), textOf(await draw(gpu, again, 1)));
    // Held out, and after the end.
    for (const document of [0, 500]) {
      await rejectsInOneLine(
        () => resumed.restore({ ...position, firstGroup: 9999, document }),
        /^RangeError: Cannot resume the batches of "storybook:101:12": expected a position of this text/,
      );
    }
  }
});

Deno.test("LiveRows leaves out long vectors and tokens, and holds the first documents out", async () => {
  const gpu = await testGpu();
  using reader = await openReader(gpu);
  const all = await collected(reader, 0);
  const norms = rowNormsOf(all.rows, D);
  const skipped = [all.token_ids[3]!, all.token_ids[4]!];
  const holdOut = 40;
  const maxNorm = 1.2;
  using live = await LiveRows.open(options(gpu, reader, {
    holdOut,
    skipTokens: skipped,
    maxNorm,
  }, { skipFirst: 0 }));
  const isWanted = (row: number): boolean =>
    !skipped.includes(all.token_ids[row]!);
  const wanted = [...norms.keys()].filter(isWanted);
  // Passes of up to 100 tokens: those that the held-out rows come from are not trained on.
  const held: number[] = [];
  for await (const rows of live.heldOut()) {
    held.push(...rows);
  }
  const trained = wanted.filter((row) =>
    all.documents[row]! >= live.position.document!
  );
  const limit = maxNorm *
    medianOf(Float64Array.from(trained, (row) => norms[row]!));
  const kept = trained.filter((row) => norms[row]! <= limit);
  equal(live.statistics.n, kept.length);
  const values = bf16ToF32(Uint16Array.from(bitsOf(all.rows, kept)));
  for (const batch of await draw(gpu, live, 10)) {
    ok(indices(batch, values).every((row) => row >= 0), "all are kept ones");
  }
  equal(live.dropped.highNorm, trained.length - kept.length);
  ok(kept.length < trained.length - 5 && kept.length > 5, `${kept.length}`);
  equal(live.dropped.badRows, 0);
  const nSkipped =
    [...norms.keys()].filter((row) =>
      !isWanted(row) && all.documents[row]! >= live.position.document!
    ).length;
  equal(live.dropped.skippedTokens, nSkipped);
  const heldRows = wanted.slice(0, holdOut).filter((row) =>
    norms[row]! <= limit
  );
  deepEqual(held, bitsOf(all.rows, heldRows));
});

/** Makes the reader put a NaN into a row of every pass. */
function spoil(gpu: Gpu, reader: ResidualReader, row: number): Disposable {
  const submit = reader.submit.bind(reader);
  const bad = gpu.floats("bad", [1, D], new Float32Array(D).fill(NaN));
  reader.submit = (sequences, use): void =>
    submit(sequences, (rec, x) => {
      rec.copy(bad, x, { toRow: row, nRows: 1 });
      use!(rec, x);
    });
  return bad;
}

Deno.test("LiveRows names document and position of a vector that is not finite, or counts it", async () => {
  const gpu = await testGpu();
  using reader = await openReader(gpu);
  using _bad = spoil(gpu, reader, 5);
  await rejectsInOneLine(
    () => LiveRows.open(options(gpu, reader)),
    /^RangeError: Cannot train on "storybook:101:12": expected finite values of resid_post\[2\]: got NaN or infinity in document 0, position 5 of its context:/,
  );
  using live = await LiveRows.open(
    options(gpu, reader, { skipBadRows: true }),
  );
  ok(live.dropped.badRows > 3, `${live.dropped.badRows}, one a pass`);
  for (const batch of await draw(gpu, live, 30)) {
    ok(batch.every(Number.isFinite));
  }
});

Deno.test("LiveRows refuses a text of too few vectors, and frees its memory", async () => {
  const gpu = await testGpu();
  using reader = await openReader(gpu);
  const tooFew = () =>
    rejectsInOneLine(
      () => LiveRows.open(options(gpu, reader, { batch: 4096 })),
      /^RangeError: Cannot train on "storybook:101:12": expected at least 4096 vectors, a batch: got \d+ /,
    );
  await tooFew();
  // The reader's cache has grown to its passes.
  const before = gpu.allocatedBytes;
  await tooFew();
  await rejectsInOneLine(
    () => LiveRows.open(options(gpu, reader, { holdOut: 4096 })),
    /^RangeError: Cannot train on .*: expected more than the 4096 vectors that are held out: got \d+:/,
  );
  await rejectsInOneLine(
    () => LiveRows.open(options(gpu, reader, {}, { skipFirst: 48 })),
    /^RangeError: Cannot train on .*: expected documents of more than 48 tokens/,
  );
  equal(gpu.allocatedBytes, before);
});
