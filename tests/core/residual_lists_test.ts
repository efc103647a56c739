import assert from "node:assert/strict";
import { directory } from "../../core/files.ts";
import { decodeBinary, decodeLists } from "../../core/fixed_width.ts";
import { ParquetFile } from "../../core/parquet.ts";
import { dataPageHeader, ParquetChunks } from "../../core/parquet_chunks.ts";
import {
  type LabeledResidualRows,
  ResidualFolder,
  ResidualShard,
  ResidualShardWriter,
} from "../../core/residuals.ts";
import { firstNonFinite } from "../../core/residual_shard.ts";
import { Rng } from "../../core/rng.ts";
import { memoryFolder, memorySource, type Source } from "../../core/source.ts";
import { joined } from "../joined.ts";
import { rejectsInOneLine } from "../rejects_in_one_line.ts";

// What pyarrow 25 and datasets 5 write of the same 60 rows of 19 values, in row groups of 40.
const folder = directory(
  new URL("../fixtures/residual-lists", import.meta.url).pathname,
);
const D = 19;

const HEADER = {
  modelName: "tiny",
  modelFingerprint: "abc",
  hookPoint: "resid_post[3]",
  dtype: "bf16",
  d_model: D,
} as const;

async function bytesOf(file: string): Promise<Uint8Array<ArrayBuffer>> {
  const source = await folder.open(file);
  return await source.read(0, source.byteLength);
}

async function rowsOf(source: Source): Promise<number[]> {
  const shard = await ResidualShard.open(source);
  const batches = await Array.fromAsync(shard.batches());
  return batches.flatMap(({ rows }) => [...rows]);
}

const KNOWN = [
  "datasets",
  "dictionary-snappy-v1",
  "dictionary-snappy-v2",
  "fixed-size-list",
  "large-list",
  "many-pages",
  "plain-v1",
  "plain-v2",
  "plain-zstd-v1",
  "plain-zstd-v2",
  "required",
];

for (const name of [...KNOWN, "delta"]) {
  Deno.test(`ResidualShard reads lists bit for bit when they are written as ${name}`, async () => {
    const want = new Uint16Array((await bytesOf("rows.bin")).buffer);
    const source = await folder.open(`${name}.parquet`);
    assert.deepEqual(await rowsOf(source), [...want]);
    const file = await ParquetFile.open(source);
    const group = file.rowGroups.length - 1;
    const { decoded } = await file.decode(
      "residual_stream",
      group,
      decodeLists,
    );
    // Those that are not known are hyparquet's to read.
    assert.equal(decoded !== undefined, KNOWN.includes(name));
    const values = await file.read("residual_stream", group);
    const last = Array.from(values).flat();
    assert.deepEqual(last, [...want.slice(-last.length)]);
    assert.equal(last.length, D * file.rowGroups[group]!.n_rows);
  });
}

Deno.test("ResidualShard reads the labels of a file without header when all are there", async () => {
  const shard = await ResidualShard.open(
    await folder.open("datasets.parquet"),
  );
  assert.equal(shard.header, undefined);
  const { token_ids, positions, documents } = await shard.read(0);
  assert.deepEqual([...token_ids!.slice(-2)], [58, 59]);
  assert.deepEqual([...positions!.slice(-2)], [58 % 7, 59 % 7]);
  assert.deepEqual([...documents!.slice(-2)], [8, 8]);
  assert.deepEqual(await shard.tokenIds(0), token_ids);
});

Deno.test("ResidualFolder opens files without header when a vector of the first is not finite, which is told when it is read", async () => {
  const bytes = await bytesOf("plain-v1.parquet");
  const all = new Uint16Array((await bytesOf("rows.bin")).buffer);
  const row = Int32Array.from(all.subarray(10 * D, 11 * D));
  const words = new Uint8Array(row.buffer);
  const at = bytes.findIndex((_, i) =>
    words.every((byte, j) => bytes[i + j] === byte)
  );
  bytes.set([0xc0, 0x7f], at);
  const files = { "a.parquet": bytes };
  const loose = await ResidualFolder.open(memoryFolder("loose", files));
  assert.equal(loose.manifest.model.d_model, D);
  const shard = await loose.shard(0);
  const rows = await shard.rows(0, { keepBad: true });
  assert.equal(rows[10 * D], 0x7fc0);
  await rejectsInOneLine(() => shard.rows(0), /^RangeError: .*in row 10:/);
});

for (const layout of ["binary", "list"] as const) {
  Deno.test(`ResidualShardWriter copies the rows of another tool exactly, as ${layout}`, async () => {
    const shard = await ResidualShard.open(
      await folder.open("datasets.parquet"),
    );
    const batch = await shard.read(0) as LabeledResidualRows;
    const writer = new ResidualShardWriter(HEADER, { layout });
    writer.add(batch);
    const bytes = joined(writer.finish());
    const copy = await ResidualShard.open(memorySource("copy.parquet", bytes));
    assert.deepEqual(await copy.read(0), batch);
    // Straight from the pages: the long way round would be many times as slow.
    const file = await ParquetFile.open(memorySource("copy.parquet", bytes));
    const { decoded } = layout === "list"
      ? await file.decode("residual_stream", 0, decodeLists)
      : await file.decode("residual", 0, (pages) => decodeBinary(pages, 2 * D));
    assert.deepEqual(decoded, batch.rows);
  });
}

Deno.test("firstNonFinite() finds a bad value wherever it is", () => {
  for (const bad of [0x7f80, 0xff80, 0x7fc1, 0xffff]) {
    for (let length = 0; length < 9; length++) {
      for (const start of [0, 1]) {
        // What lies beside the values does not count.
        const all = new Uint16Array(12).fill(0x7f80);
        const bits = all.subarray(start, start + length).fill(0xff7f);
        assert.equal(firstNonFinite(bits), -1);
        for (let at = 0; at < length; at++) {
          assert.equal(firstNonFinite(bits.with(at, bad)), at);
          bits[at] = bad;
          assert.equal(firstNonFinite(bits), at, `${start} ${length} ${at}`);
          bits[at] = 0x7f7f;
        }
      }
    }
  }
});

/** A shard of the longest rows there are, which are not in it. */
function emptyRows(d_model: number, n_rows: number): Source {
  const labels = new Uint8Array(4 * n_rows);
  const pages = (bytes: Uint8Array<ArrayBuffer>) => [
    joined([dataPageHeader(n_rows, bytes.length), bytes]),
  ];
  const required = { repetition_type: "REQUIRED" as const };
  const names = ["token_id", "position", "document"];
  const chunks = new ParquetChunks();
  chunks.addRowGroup(n_rows, [
    {
      column: { path: ["residual"], type: "BYTE_ARRAY" },
      n_values: n_rows,
      pages: pages(new Uint8Array(0)),
    },
    ...names.map((name) => ({
      column: { path: [name], type: "INT32" as const },
      n_values: n_rows,
      pages: pages(labels),
    })),
  ]);
  const schema = [
    { name: "root", num_children: 4 },
    { name: "residual", type: "BYTE_ARRAY" as const, ...required },
    ...names.map((name) => ({ name, type: "INT32" as const, ...required })),
  ];
  const value = JSON.stringify({ ...HEADER, d_model });
  const file = chunks.finish(schema, [{ key: "open_concept_steering", value }]);
  return memorySource("bomb.parquet", joined(file));
}

Deno.test("ResidualShard refuses rows that would be far larger than the file before it allocates them", async () => {
  const few = await ResidualShard.open(emptyRows(4, 500));
  await rejectsInOneLine(() => few.rows(0), /^SyntaxError: .*"bomb.parquet"/);
  const many = await ResidualShard.open(emptyRows(2 ** 20, 500));
  await rejectsInOneLine(
    () => many.rows(0),
    /^RangeError: .*"bomb.parquet".*at most 67108864 bytes.*got 1048576000 in 0 /,
  );
});

const BAD: [string, RegExp][] = [
  ["bad-null-value", /^SyntaxError: .*in row 41/],
  ["bad-null-list", /^SyntaxError: .*in row 41/],
  ["bad-width", /^SyntaxError: .*in row 41/],
  [
    "bad-group-width",
    /^SyntaxError: .*rows of 19 values: got 18 in row group 1/,
  ],
  ["bad-nan", /^RangeError: .*0x7fc0 in row 41/],
  ["bad-int32", /^SyntaxError: .*lists of uint16: got lists of INT32/],
  ["bad-float", /^SyntaxError: .*lists of uint16: got lists of FLOAT/],
  ["bad-flat", /^SyntaxError: .*lists of uint16: got INT32/],
  ["bad-encrypted", /^SyntaxError: .*not encrypted: got encryption: write/],
  [
    "bad-encrypted-column",
    /^SyntaxError: .*not encrypted: got encryption in column/,
  ],
];

for (const [name, pattern] of BAD) {
  Deno.test(`ResidualShard refuses a file of another tool when it is ${name}`, async () => {
    const source = await folder.open(`${name}.parquet`);
    await rejectsInOneLine(() => rowsOf(source), pattern);
    await rejectsInOneLine(() => rowsOf(source), new RegExp(name));
  });
}

for (
  const name of ["plain-v1", "dictionary-snappy-v2", "plain-zstd-v2", "delta"]
) {
  Deno.test(`ResidualShard gives as many rows or refuses ${name} when any byte is damaged`, async () => {
    const bytes = await bytesOf(`${name}.parquet`);
    const rng = new Rng(7);
    let nRefused = 0;
    for (let i = 0; i < 300; i++) {
      const damaged = bytes.slice();
      // Half of the hits go to the headers of the first pages, where sizes are believed.
      const at = i % 2 ? rng.below(bytes.length) : rng.below(120);
      damaged[at] = i % 3 ? rng.below(256) : damaged[at]! ^ 0x80;
      try {
        const rows = await rowsOf(memorySource("damaged.parquet", damaged));
        assert.equal(rows.length, 60 * D);
      } catch (error) {
        assert.ok(
          error instanceof SyntaxError || error instanceof RangeError,
          String(error),
        );
        assert.match(error.message, /^Cannot .*"damaged.parquet".*[^.\n]$/);
        nRefused++;
      }
    }
    assert.ok(nRefused > 30, `${nRefused} of 300 refused`);
  });
}
