import { deepEqual, equal, rejects } from "node:assert/strict";
import { join } from "node:path";
import { directory } from "../../core/files.ts";
import { ResidualFolder } from "../../core/residuals.ts";
import type { BatchOptions, BatchSource } from "../../train/batch_source.ts";
import { Batches, rowGroupsOf } from "../../train/batches.ts";
import {
  BATCHES_AHEAD,
  PrefetchedBatches,
} from "../../train/prefetched_batches.ts";
import { rejectsInOneLine } from "../rejects_in_one_line.ts";
import {
  damageRow,
  madeFolder,
  madeRows,
  writtenFolder,
} from "./made_residuals.ts";

const OPTIONS: BatchOptions = {
  batch: 64,
  bufferRows: 9000,
  holdOut: 700,
  seed: 3,
  maxNorm: 2,
  skipTokens: [5, 6, 4097],
  init: "median",
};

async function inProcess(
  path: string,
  options: BatchOptions,
): Promise<Batches> {
  const folder = await ResidualFolder.open(directory(path));
  return await Batches.open(await rowGroupsOf(folder, options), options);
}

/** Batches and the positions after them. */
async function draw(source: BatchSource, n: number): Promise<unknown[]> {
  const drawn: unknown[] = [];
  for (let i = 0; i < n; i++) {
    const rows = await source.next();
    drawn.push({ rows, position: source.position, dropped: source.dropped });
  }
  return drawn;
}

async function heldOut(source: BatchSource): Promise<number[]> {
  const values: number[] = [];
  for await (const rows of source.heldOut()) values.push(...rows);
  return values;
}

Deno.test("PrefetchedBatches gives the bits of Batches, their positions and what was left out", async () => {
  await using owned = new AsyncDisposableStack();
  const shards = [5000, 900, 4096, 3000];
  const path = await writtenFolder(owned, madeFolder({ shards }));
  // In memory, and passing through a buffer of parts of row groups.
  for (const bufferRows of [20_000, 9000, 10]) {
    const options = { ...OPTIONS, bufferRows };
    const here = await inProcess(path, options);
    using there = await PrefetchedBatches.open(path, options);
    equal(there.name, here.name);
    equal(there.d_model, here.d_model);
    deepEqual(there.statistics, here.statistics);
    deepEqual(there.position, here.position);
    deepEqual(there.dropped, here.dropped);
    deepEqual(await heldOut(there), await heldOut(here));
    deepEqual(await draw(there, 150), await draw(here, 150));
    deepEqual(await heldOut(there), await heldOut(here));
  }
});

Deno.test("PrefetchedBatches.restore() goes on as Batches does, whatever was made ahead", async () => {
  await using owned = new AsyncDisposableStack();
  const shards = [5000, 900, 4096, 3000];
  const path = await writtenFolder(owned, madeFolder({ shards }));
  using straight = await PrefetchedBatches.open(path, OPTIONS);
  await draw(straight, 100);
  const position = structuredClone(straight.position);
  const rest = await draw(straight, 2 * BATCHES_AHEAD);
  using resumed = await PrefetchedBatches.open(path, OPTIONS);
  await resumed.restore(position);
  deepEqual(resumed.position, position);
  const rows = (drawn: unknown[]): unknown[] =>
    (drawn as { rows: unknown; position: unknown }[])
      .map(({ rows, position }) => ({ rows, position }));
  deepEqual(rows(await draw(resumed, 2 * BATCHES_AHEAD)), rows(rest));
  // With batches ready that follow another position.
  await resumed.restore(position);
  deepEqual(rows(await draw(resumed, 2 * BATCHES_AHEAD)), rows(rest));
  await resumed.restore(position);
  await rejectsInOneLine(
    () => resumed.restore({ ...position, nDrawn: -1 }),
    /^RangeError: Cannot resume the batches of .* expected a position of this data/,
  );
  deepEqual(rows(await draw(resumed, 2)), rows(rest).slice(0, 2));
});

Deno.test("PrefetchedBatches tells failures of the worker with class and message", async () => {
  await using owned = new AsyncDisposableStack();
  const files = madeFolder({ shards: [4096, 4096] });
  const path = await writtenFolder(owned, files);
  await rejects(
    PrefetchedBatches.open(join(path, "none"), OPTIONS),
    /Cannot open folder .*none/,
  );
  await rejectsInOneLine(
    () => PrefetchedBatches.open(path, { ...OPTIONS, holdOut: 8192 }),
    /^RangeError: Cannot train on .*: expected more than the 8192 vectors that are held out: got 8192/,
  );
  // The data changes after it was measured.
  const options = { ...OPTIONS, bufferRows: 10, holdOut: 0 };
  using batches = await PrefetchedBatches.open(path, options);
  await batches.next();
  for (const shard of [0, 1]) {
    const row = madeRows(shard, 4096).subarray(30, 33);
    damageRow(files[`shard-${shard}.parquet`]!, row, 0x7f80);
    // The worker reads ahead meanwhile: it is to see one file or the other, never a part.
    const aside = join(path, "aside");
    await Deno.writeFile(aside, files[`shard-${shard}.parquet`]!);
    await Deno.rename(aside, join(path, `shard-${shard}.parquet`));
  }
  await rejectsInOneLine(
    () => draw(batches, 3 * 64),
    /^RangeError: Cannot read ".*shard-\d\.parquet": expected finite values: got bits 0x7f80 in row 10:/,
  );
});

Deno.test("PrefetchedBatches ends its worker when it is disposed of, and refuses who still waits", async () => {
  await using owned = new AsyncDisposableStack();
  const path = await writtenFolder(owned, madeFolder({ shards: [2000] }));
  const batches = await PrefetchedBatches.open(path, OPTIONS);
  await batches.next();
  const waiting = batches.restore(batches.position);
  batches[Symbol.dispose]();
  await rejects(waiting, /the worker was disposed of/);
  await rejects(batches.next(), /the worker was disposed of/);
});
