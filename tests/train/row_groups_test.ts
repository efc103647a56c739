import { deepEqual, equal, ok, rejects } from "node:assert/strict";
import { ResidualFolder } from "../../core/residuals.ts";
import { memoryFolder } from "../../core/source.ts";
import { bf16ToF32, f32ToBf16 } from "../../core/dtype.ts";
import { Batches } from "../../train/batches.ts";
import { rowGroupsOf } from "../../train/row_groups.ts";
import { damageRow, MADE_D, madeFolder, madeRows } from "./made_residuals.ts";

type Files = Record<string, Uint8Array<ArrayBuffer>>;

/** A folder in memory, and how often the bytes of a shard's rows were read. */
async function opened(
  files: Files,
): Promise<{ folder: ResidualFolder; reads: number[] }> {
  const folder = await ResidualFolder.open(memoryFolder("r", files));
  const reads: number[] = [];
  const shard = folder.shard.bind(folder);
  folder.shard = async (index) => {
    const open = await shard(index);
    const rows = open.rows.bind(open);
    open.rows = (group, options) => {
      reads.push(index);
      return rows(group, options);
    };
    return open;
  };
  return { folder, reads };
}

Deno.test("rowGroupsOf() splits row groups of which the buffer holds only a few, and reads each once in a row", async () => {
  const { folder, reads } = await opened(
    madeFolder({ shards: [5000, 700] }),
  );
  // Row groups of 4096, 904 and 700 vectors; an eighth of the buffer is 600.
  const groups = await rowGroupsOf(folder, { bufferRows: 4800 });
  equal(groups.sizes.length, 7 + 2 + 2);
  ok(groups.sizes.every((n) => n >= 350 && n <= 600), `${groups.sizes}`);
  const rows: number[] = [];
  const tokens: number[] = [];
  for (const group of groups.sizes.keys()) {
    const part = await groups.read(group);
    equal(part.length, groups.sizes[group]! * MADE_D);
    // Nothing of the rest of the row group stays with it.
    equal(part.buffer.byteLength, part.byteLength);
    rows.push(...part);
    tokens.push(...await groups.tokens!(group) ?? []);
  }
  deepEqual(rows, [...madeRows(0, 5000), ...madeRows(1, 700)]);
  deepEqual(tokens, [...Array(5000).keys(), ...Array(700).keys()]);
  deepEqual(reads, [0, 0, 1]);
});

Deno.test("rowGroupsOf() leaves row groups whole when the data or eight of them fit, and parts of 512", async () => {
  const { folder } = await opened(madeFolder({ shards: [5000, 1200] }));
  const sizes = async (bufferRows?: number, holdOut = 0): Promise<number[]> => {
    const options = bufferRows === undefined ? {} : { bufferRows, holdOut };
    return [...(await rowGroupsOf(folder, options)).sizes];
  };
  const whole = [4096, 904, 1200];
  deepEqual(await sizes(), whole);
  deepEqual(await sizes(6200), whole);
  deepEqual(await sizes(6000, 200), whole);
  deepEqual(await sizes(6000, 199), [
    ...[682, 683, 683, 682, 683, 683], // of 750 at most
    ...[452, 452],
    ...[600, 600],
  ]);
  deepEqual(await sizes(1), [
    ...Array<number>(8).fill(512),
    ...[452, 452],
    ...[400, 400, 400],
  ]);
});

Deno.test("rowGroupsOf() tells of a damaged vector whichever part is read, and of none when bad ones are kept", async () => {
  const files = madeFolder({ shards: [4096, 4096] });
  const bad = madeRows(1, 4096).subarray(4000 * MADE_D, 4001 * MADE_D);
  damageRow(files["shard-1.parquet"]!, bad, 0x7f80);
  const groups = await rowGroupsOf((await opened(files)).folder, {
    bufferRows: 8000,
  });
  const last = groups.sizes.length - 1;
  const kept = await groups.read(last, { keepBad: true });
  equal(kept.filter((bits) => bits === 0x7f80).length, 1);
  // What was read for one who keeps bad vectors is not given to one who does not.
  await rejects(
    groups.read(last),
    /^RangeError: Cannot read "r\/shard-1\.parquet": expected finite values: got bits 0x7f80 in row 4000/,
  );
  deepEqual(await groups.read(last, { keepBad: true }), kept);
});

Deno.test("Batches mixes eight places of the data at least when row groups are larger than its buffer", async () => {
  // First elements tell thousands of rows: 4096 rows have the same 8 runs of 512.
  const rows = (shard: number, n: number): Uint16Array<ArrayBuffer> =>
    f32ToBf16(
      Float32Array.from(
        { length: n * MADE_D },
        (_, i) => 1 + 8 * shard + Math.floor(i / MADE_D / 512),
      ),
    );
  const files = madeFolder({ shards: Array(8).fill(4096), rows });
  const { folder } = await opened(files);
  const options = { batch: 256, bufferRows: 4096, holdOut: 0, seed: 3 };
  const batches = await Batches.open(
    await rowGroupsOf(folder, options),
    options,
  );
  const seen = new Set<number>();
  for (let i = 0; i < 20; i++) {
    const runs = new Set(
      bf16ToF32(await batches.next()).filter((_, at) => at % MADE_D === 0),
    );
    equal(runs.size, 8, `batch ${i}`);
    const shards = new Set([...runs].map((run) => Math.floor((run - 1) / 8)));
    ok(shards.size >= 3, `batch ${i}: shards ${[...shards]}`);
    for (const run of runs) seen.add(run);
  }
  // A part goes every other batch.
  equal(seen.size, 8 + 9);
});
