import assert from "node:assert/strict";
import { parquetWriteBuffer } from "hyparquet-writer";
import { directory } from "../../core/files.ts";
import {
  parseResidualManifest,
  ResidualFolder,
  type ResidualManifest,
} from "../../core/residuals.ts";
import { memoryFolder } from "../../core/source.ts";
import { randomRows, shardOf } from "./made_shards.ts";
import { rejectsInOneLine } from "../rejects_in_one_line.ts";

const fixture = directory(
  new URL("../fixtures/residual-parquet", import.meta.url).pathname,
);

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
