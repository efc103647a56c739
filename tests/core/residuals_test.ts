import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { parquetWriteBuffer } from "hyparquet-writer";
import { f32ToBf16 } from "../../core/dtype.ts";
import { directory } from "../../core/files.ts";
import {
  type LabeledResidualRows,
  type NewResidualHeader,
  parseResidualManifest,
  ResidualFolder,
  type ResidualManifest,
  ResidualShard,
  ResidualShardWriter,
} from "../../core/residuals.ts";
import { Rng } from "../../core/rng.ts";
import { Safetensors } from "../../core/safetensors.ts";
import { memoryFolder, memorySource } from "../../core/source.ts";
import { joined } from "../joined.ts";
import { rejectsInOneLine } from "../rejects_in_one_line.ts";

const fixture = directory(
  new URL("../fixtures/residual-parquet", import.meta.url).pathname,
);

function header(d_model: number): NewResidualHeader {
  return {
    modelName: "tiny",
    modelFingerprint: "abc",
    hookPoint: "resid_post[3]",
    dtype: "bf16",
    d_model,
  };
}

function randomRows(
  seed: number,
  n_rows: number,
  d_model: number,
): LabeledResidualRows {
  const rng = new Rng(seed);
  const values = Float32Array.from(
    { length: n_rows * d_model },
    () => rng.normal(),
  );
  const label = (): Int32Array =>
    Int32Array.from({ length: n_rows }, () => rng.below(2 ** 31));
  return {
    n_rows,
    d_model,
    rows: f32ToBf16(values),
    token_ids: label(),
    positions: label(),
    documents: label(),
  };
}

function shardOf(...batches: LabeledResidualRows[]): {
  bytes: Uint8Array;
  sha256: string;
} {
  const writer = new ResidualShardWriter(header(batches[0]!.d_model));
  for (const batch of batches) writer.add(batch);
  const bytes = joined(writer.finish());
  return { bytes, sha256: createHash("sha256").update(bytes).digest("hex") };
}

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

const MODEL = {
  name: "tiny",
  fingerprint: "abc",
  d_model: 6,
  n_layers: 8,
} as const;

function folderOf(
  change: Partial<ResidualManifest> = {},
): ReturnType<typeof memoryFolder> {
  const { bytes, sha256 } = shardOf(randomRows(8, 30, 6));
  const other = shardOf(randomRows(9, 20, 6));
  const manifest: ResidualManifest = {
    kind: "residuals",
    fingerprint: "f",
    formatVersion: 2,
    model: MODEL,
    hookPoint: "resid_post[3]",
    layout: "binary",
    dtype: "bf16",
    contextLength: 256,
    pack: true,
    separator: true,
    skipFirst: 1,
    skipTokens: [],
    text: "storybook:101",
    shards: [
      { file: "0.parquet", n_rows: 30, bytes: bytes.length, sha256 },
      {
        file: "1.parquet",
        n_rows: 20,
        bytes: other.bytes.length,
        sha256: other.sha256,
      },
    ],
    n_tokens: 50,
    n_documents: 2,
    done: true,
    ...change,
  };
  return memoryFolder("residuals", {
    "manifest.json": new TextEncoder().encode(JSON.stringify(manifest)),
    "0.parquet": bytes,
    "1.parquet": other.bytes,
  });
}

Deno.test("ResidualFolder.batches() gives the shards in order", async () => {
  const folder = await ResidualFolder.open(folderOf());
  const batches = await Array.fromAsync(folder.batches());
  assert.deepEqual(batches.map(({ n_rows }) => n_rows), [30, 20]);
  assert.deepEqual(batches[1]!.rows, randomRows(9, 20, 6).rows);
});

Deno.test("ResidualFolder refuses shards that are not those of the manifest", async () => {
  const { manifest } = await ResidualFolder.open(folderOf());
  const [first] = manifest.shards;
  const changes: [Partial<ResidualManifest>, RegExp][] = [
    [{ hookPoint: "final_norm@3" }, /final_norm@3.*resid_post\[3\]/],
    [{ model: { ...MODEL, d_model: 8 } }, /d_model 8.*got 6/],
    [{ model: { ...MODEL, fingerprint: "x" } }, /\(x\).*\(abc\)/],
    [{ shards: [{ ...first!, bytes: 7 }], n_tokens: 30 }, /expected 7 bytes/],
    [{ shards: [{ ...first!, n_rows: 9 }], n_tokens: 9 }, /expected 9 rows/],
  ];
  for (const [change, pattern] of changes) {
    const folder = await ResidualFolder.open(folderOf(change));
    await rejectsInOneLine(() => folder.shard(0), /^RangeError: .*0\.parquet/);
    await rejectsInOneLine(() => folder.shard(0), pattern);
  }
  const folder = await ResidualFolder.open(folderOf());
  await rejectsInOneLine(() => folder.shard(2), /^RangeError: .*0 to 1/);
});

Deno.test("ResidualFolder.open() refuses a folder when it holds no vectors", async () => {
  await rejectsInOneLine(
    () => ResidualFolder.open(memoryFolder("none", {})),
    /^Error: .*"none".*expected manifest\.json or parquet files: got neither: collect them first$/,
  );
  const empty = folderOf({ shards: [], n_tokens: 0 });
  await rejectsInOneLine(() => ResidualFolder.open(empty), /none yet/);
});

Deno.test("parseResidualManifest() names the file and the field that is wrong", async () => {
  const { manifest } = await ResidualFolder.open(folderOf());
  const [shard] = manifest.shards;
  const wrong: [string, unknown][] = [
    ["kind", { ...manifest, kind: "sae" }],
    ["formatVersion", { ...manifest, formatVersion: 3 }],
    ["hookPoint", { ...manifest, hookPoint: "final_norm" }],
    ["n_tokens", { ...manifest, n_tokens: 51 }],
    ["shards.0.file", {
      ...manifest,
      shards: [{ ...shard, file: "../0.parquet" }],
    }],
    ["shards.1.file", { ...manifest, shards: [shard, shard], n_tokens: 60 }],
    ["shard", { ...manifest, shard: { index: 2, count: 2 } }],
    ["shards.0.n_rows", { ...manifest, shards: [{ ...shard, n_rows: 1.5 }] }],
    ["model", { ...manifest, model: undefined }],
  ];
  for (const [field, json] of wrong) {
    assert.throws(
      () => parseResidualManifest(json, "m.json"),
      (error: Error) =>
        error instanceof SyntaxError &&
        error.message.startsWith(`Cannot read "m.json": field "${field}": `) &&
        !error.message.includes("\n"),
      field,
    );
  }
  assert.throws(() => parseResidualManifest(null, "m.json"), SyntaxError);
});

Deno.test("parseResidualManifest() reads version 1, whose documents had a context each", () => {
  const { layout, dtype, pack, separator, skipTokens, ...first } =
    parseResidualManifest(
      {
        kind: "residuals",
        fingerprint: "f",
        formatVersion: 1,
        model: MODEL,
        hookPoint: "resid_post[3]",
        contextLength: 256,
        text: "storybook:101",
        skipFirst: 1,
        shards: [],
        n_tokens: 0,
        n_documents: 0,
        done: false,
      },
      "manifest.json",
    );
  assert.deepEqual(
    { layout, dtype, pack, separator, skipTokens },
    {
      layout: "binary",
      dtype: "bf16",
      pack: false,
      separator: true,
      skipTokens: [],
    },
  );
  assert.equal(first.formatVersion, 2);
});

/** The fixture of Hugging Face under names of which the second sorts before the first as text. */
async function looseFolder(): Promise<Record<string, Uint8Array>> {
  const source = await fixture.open("rank0_chunk0.parquet");
  const bytes = await source.read(0, source.byteLength);
  return { "rank0_chunk2.parquet": bytes, "rank0_chunk10.parquet": bytes };
}

Deno.test("ResidualFolder.open() reads the footers of files that have no manifest, in the order of their numbers", async () => {
  const files = await looseFolder();
  const folder = await ResidualFolder.open(memoryFolder("loose", files));
  const { manifest } = folder;
  assert.deepEqual(manifest.shards.map(({ file, n_rows }) => [file, n_rows]), [
    ["rank0_chunk2.parquet", 300],
    ["rank0_chunk10.parquet", 300],
  ]);
  assert.deepEqual(
    [manifest.n_tokens, manifest.model.d_model, manifest.done],
    [600, 192, true],
  );
  assert.deepEqual([manifest.hookPoint, manifest.model.name], [
    undefined,
    undefined,
  ]);
  const batches = await Array.fromAsync(folder.batches());
  assert.equal(batches.reduce((sum, { n_rows }) => sum + n_rows, 0), 600);
});

Deno.test("ResidualFolder.open() takes what it is told for what the files leave out, and nothing else", async () => {
  const told = { hookPoint: "final_norm@15", modelName: "OLMo-2" } as const;
  const loose = memoryFolder("loose", await looseFolder());
  const { manifest } = await ResidualFolder.open(loose, told);
  assert.deepEqual([manifest.hookPoint, manifest.model.name], [
    "final_norm@15",
    "OLMo-2",
  ]);
  const { bytes } = shardOf(randomRows(8, 30, 6));
  const ours = memoryFolder("ours", { "a.parquet": bytes });
  const opened = await ResidualFolder.open(ours);
  assert.equal(opened.manifest.hookPoint, "resid_post[3]");
  for (const folder of [ours, folderOf()]) {
    await rejectsInOneLine(
      () => ResidualFolder.open(folder, told),
      /^RangeError: .*expected resid_post\[3\], as its files say: got final_norm@15: leave --hook out$/,
    );
  }
});

Deno.test("ResidualFolder.open() refuses loose files that hold no residuals or are cut, and tasks that are not merged", async () => {
  const files = await looseFolder();
  const cut = files["rank0_chunk2.parquet"]!.slice(0, -9);
  await rejectsInOneLine(
    () =>
      ResidualFolder.open(memoryFolder("cut", { ...files, "a.parquet": cut })),
    /^SyntaxError: Cannot read "cut\/a\.parquet": expected a parquet file/,
  );
  const task = {
    "shard_000-of-002_00000.parquet": files["rank0_chunk2.parquet"]!,
  };
  await rejectsInOneLine(
    () => ResidualFolder.open(memoryFolder("tasks", task)),
    /^Error: .*expected manifest\.json: got the files of tasks that are not merged: run \.\/ocs data merge/,
  );
  const { bytes } = shardOf(randomRows(8, 30, 6));
  const { bytes: wide } = shardOf(randomRows(8, 30, 7));
  const mixed = await ResidualFolder.open(
    memoryFolder("mixed", { "a.parquet": bytes, "b.parquet": wide }),
  );
  await rejectsInOneLine(
    () => mixed.shard(1),
    /^RangeError: .*b\.parquet": expected d_model 6 by its neighbors: got 7/,
  );
});

/** A file as other tools write it: three rows of a width, and nothing about them. */
function listFile(width: number): Uint8Array {
  const row = (i: number): number[] => Array.from({ length: width }, () => i);
  const file = parquetWriteBuffer({
    columnData: [{ name: "residual_stream", data: [1, 2, 3].map(row) }],
    schema: [
      { name: "root", num_children: 1 },
      {
        name: "residual_stream",
        repetition_type: "OPTIONAL",
        num_children: 1,
        converted_type: "LIST",
      },
      { name: "list", repetition_type: "REPEATED", num_children: 1 },
      {
        name: "element",
        type: "INT32",
        repetition_type: "OPTIONAL",
        converted_type: "UINT_16",
      },
    ],
  });
  return new Uint8Array(file);
}

Deno.test("ResidualFolder refuses a file whose rows are of another width than those of the first, where no file says it", async () => {
  const files = { "a.parquet": listFile(4), "b.parquet": listFile(5) };
  const folder = await ResidualFolder.open(memoryFolder("loose", files));
  assert.equal(folder.manifest.model.d_model, 4);
  const shard = await folder.shard(1);
  await rejectsInOneLine(
    () => shard.rows(0),
    /^SyntaxError: Cannot read "loose\/b\.parquet": expected rows of 4 values: got 5 /,
  );
});
