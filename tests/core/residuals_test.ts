import assert from "node:assert/strict";
import { directory } from "../../core/files.ts";
import { ResidualShard, ResidualShardWriter } from "../../core/residuals.ts";
import { Rng } from "../../core/rng.ts";
import { Safetensors } from "../../core/safetensors.ts";
import { memorySource } from "../../core/source.ts";
import { joined } from "../joined.ts";
import { header, randomRows, shardOf } from "./made_shards.ts";
import { rejectsInOneLine } from "../rejects_in_one_line.ts";

const fixture = directory(
  new URL("../fixtures/residual-parquet", import.meta.url).pathname,
);

Deno.test("ResidualShard reads what Hugging Face datasets writes, bit for bit", async () => {
  const source = await fixture.open("rank0_chunk0.parquet");
  const shard = await ResidualShard.open(source);
  const expected = await Safetensors.open(
    await fixture.open("expected.safetensors"),
  );
  const [info] = [...expected.tensors.values()];
  const want = new Uint16Array((await expected.bytes(info!.name)).buffer);
  assert.deepEqual(info!.shape, [300, 192]);
  assert.equal(shard.header, undefined);
  assert.equal(shard.n_rows, 300);
  let row = 0;
  for await (const batch of shard.batches()) {
    assert.equal(batch.d_model, 192);
    assert.equal(batch.token_ids, undefined);
    const end = row + batch.n_rows;
    assert.deepEqual(batch.rows, want.slice(row * 192, end * 192));
    row = end;
  }
  assert.equal(row, 300);
});

for (const layout of ["binary", "list"] as const) {
  Deno.test(`ResidualShardWriter round-trips rows across row groups, bit for bit, as ${layout}`, async () => {
    // 4096 rows make a group: the second batch straddles the border.
    const first = randomRows(1, 4000, 7);
    const second = randomRows(2, 5000, 7);
    const writer = new ResidualShardWriter(
      { ...header(7), revision: "main" },
      { layout },
    );
    writer.add(first);
    writer.add(second);
    assert.equal(writer.n_rows, 9000);
    const bytes = joined(writer.finish());
    const shard = await ResidualShard.open(memorySource("a.parquet", bytes));
    assert.deepEqual(shard.header, {
      ...header(7),
      revision: "main",
      shape: [9000, 7],
      scale: 1,
    });
    assert.deepEqual(
      shard.rowGroups.map(({ n_rows }) => n_rows),
      [4096, 4096, 808],
    );
    const batches = await Array.fromAsync(shard.batches());
    for (
      const key of ["rows", "token_ids", "positions", "documents"] as const
    ) {
      const got = batches.flatMap((batch) => [...batch[key]!]);
      assert.deepEqual(got, [...first[key], ...second[key]], key);
    }
  });
}

Deno.test("ResidualShardWriter stores little beside the rows and says how much", () => {
  const writer = new ResidualShardWriter(header(192));
  writer.add(randomRows(3, 5000, 192));
  assert.equal(writer.n_rows, 5000);
  const bytes = joined(writer.finish());
  const payload = 5000 * (192 * 2 + 12);
  assert.ok(bytes.length < payload * 1.02, `${bytes.length} of ${payload}`);
  assert.ok(Math.abs(writer.byteLength / bytes.length - 1) < 0.01);
});

Deno.test("ResidualShardWriter.add() refuses rows that are not finite or of another shape", () => {
  const writer = new ResidualShardWriter(header(4));
  const batch = randomRows(4, 3, 4);
  batch.rows[9] = 0x7f80;
  assert.throws(
    () => writer.add(batch),
    new RegExp(
      `^RangeError: .*0x7f80 at resid_post\\[3\\], document ${
        batch.documents[2]
      }, position ${batch.positions[2]}$`,
    ),
  );
  batch.rows[9] = 0xffc0;
  assert.throws(() => writer.add(batch), RangeError);
  assert.throws(() => writer.add(randomRows(4, 3, 5)), TypeError);
  assert.throws(
    () => writer.add({ ...randomRows(4, 3, 4), token_ids: new Int32Array(2) }),
    TypeError,
  );
  assert.equal(writer.n_rows, 0);
});

Deno.test("ResidualShardWriter.finish() refuses a shard when it has no row", () => {
  assert.throws(
    () => new ResidualShardWriter(header(4)).finish(),
    /^RangeError: .*expected rows: got none/,
  );
});

Deno.test("ResidualShard.open() refuses a file wherever it is cut", async () => {
  const { bytes } = shardOf(randomRows(5, 50, 16));
  for (let length = 0; length < bytes.length; length += 37) {
    const source = memorySource("cut.parquet", bytes.subarray(0, length));
    await rejectsInOneLine(
      () => ResidualShard.open(source),
      /^SyntaxError: .*"cut.parquet"/,
    );
  }
});

Deno.test("ResidualShard refuses or reads a file when any byte is damaged, in one line and soon", async () => {
  const { bytes } = shardOf(randomRows(6, 20, 16));
  const rng = new Rng(6);
  let nRefused = 0;
  const started = performance.now();
  for (let i = 0; i < 400; i++) {
    const damaged = bytes.slice();
    // Half of the hits go to the footer, which is where sizes are believed.
    const at = i % 2 ? rng.below(bytes.length) : bytes.length - 1 -
      rng.below(Math.min(600, bytes.length));
    damaged[at] = rng.below(256);
    try {
      const shard = await ResidualShard.open(
        memorySource("damaged.parquet", damaged),
      );
      await Array.fromAsync(shard.batches());
    } catch (error) {
      assert.ok(error instanceof Error);
      assert.match(error.message, /^Cannot .*"damaged.parquet".*[^.\n]$/);
      nRefused++;
    }
  }
  assert.ok(nRefused > 50, `${nRefused} of 400 refused`);
  const elapsedMs = performance.now() - started;
  assert.ok(elapsedMs < 5000, `${elapsedMs} ms`);
});

Deno.test("ResidualShard.read() refuses rows that are not finite", async () => {
  const batch = randomRows(7, 10, 8);
  const { bytes } = shardOf(batch);
  const rowBytes = new Uint8Array(batch.rows.buffer, 3 * 16, 16);
  const at = bytes.findIndex((_, i) =>
    rowBytes.every((byte, j) => bytes[i + j] === byte)
  );
  bytes.set([0xc0, 0x7f], at);
  const shard = await ResidualShard.open(memorySource("nan.parquet", bytes));
  await rejectsInOneLine(
    () => shard.read(0),
    /^RangeError: .*"nan.parquet".*0x7fc0 in row 3:/,
  );
});
