import type { TextShard } from "../../core/text_order.ts";
import { deepEqual, equal, ok, rejects } from "node:assert/strict";
import { bf16ToF32 } from "../../core/dtype.ts";
import { directory } from "../../core/files.ts";
import type { HookPoint } from "../../core/hook_point.ts";
import { type ModelFolder, openModelFolder } from "../../core/model_folder.ts";
import {
  ResidualFolder,
  type ResidualManifest,
  type ResidualRows,
} from "../../core/residuals.ts";
import { Safetensors } from "../../core/safetensors.ts";
import { type Folder, memoryFolder } from "../../core/source.ts";
import { openCorpus, type ReadCorpus } from "../../core/text.ts";
import { type CollectConfig, collectResiduals } from "../../train/collect.ts";
import { mergeTasks } from "../../train/residual_merge.ts";
import { claimResiduals } from "../../train/residual_output.ts";
import { ResidualReader } from "../../train/residual_reader.ts";
import { assertClose, assertRelativeError } from "../assert_close.ts";
import { testGpu } from "../gpu_for_tests.ts";
import { rejectsInOneLine } from "../rejects_in_one_line.ts";
import { memoryStore } from "./memory_store.ts";
import { corpusOf, story } from "./numbered.ts";

const MODEL = new URL("../../models/tiny-olmo2", import.meta.url).pathname;
const FIXTURE = new URL("../fixtures/tiny-olmo2", import.meta.url).pathname;

const CONFIG: CollectConfig = {
  modelName: "tiny-olmo2",
  text: "storybook:101:12",
  contextLength: 48,
  skipFirst: 1,
  shardRows: 150,
  tokensPerPass: 100,
  pack: false,
  separator: true,
  skipTokens: new Set(),
  layout: "binary",
};

interface Collected {
  readonly manifest: ResidualManifest;
  /** Every file that was written, as it is at the end. */
  readonly files: Record<string, Uint8Array>;
}

interface RunOptions {
  readonly model?: ModelFolder;
  readonly hookPoint?: HookPoint;
  readonly config?: Partial<CollectConfig>;
  readonly read?: ReadCorpus;
  /** Files of the run that is resumed; they are written to. */
  readonly files?: Record<string, Uint8Array>;
  readonly signal?: AbortSignal;
  readonly shard?: TextShard;
  /** Called before each file is written; what it throws is what writing throws. */
  readonly onWrite?: (file: string) => void;
}

async function collect(options: RunOptions = {}): Promise<Collected> {
  const config = { ...CONFIG, ...options.config };
  const files = options.files ?? {};
  const model = options.model ?? await openModelFolder(directory(MODEL));
  using reader = await ResidualReader.load(await testGpu(), model, {
    hookPoint: options.hookPoint ?? "resid_post[1]",
    maxTokens: Math.max(config.tokensPerPass, config.contextLength),
  });
  const store = memoryStore(files, {
    beforeWrite: (file) => options.onWrite?.(file),
  });
  const claim = { fingerprint: "f", shard: options.shard };
  await using claimed = await claimResiduals(store, claim);
  const manifest = await collectResiduals({
    reader,
    config,
    read: options.read ?? await story("storybook:101:12"),
    store,
    ...claim,
    before: claimed.before,
    ...(options.signal ? { signal: options.signal } : {}),
  });
  return { manifest, files };
}

async function rowsOf(
  { files }: Pick<Collected, "files">,
): Promise<Required<ResidualRows>[]> {
  const folder = await ResidualFolder.open(memoryFolder("residuals", files));
  return await Array.fromAsync(folder.batches()) as Required<ResidualRows>[];
}

Deno.test("collectResiduals() writes what Hugging Face computes, rounded to bf16", async () => {
  const { cases } = JSON.parse(
    Deno.readTextFileSync(`${FIXTURE}/expected.json`),
  );
  const expected = await Safetensors.open(
    await directory(FIXTURE).open("expected.safetensors"),
  );
  const texts: string[] = cases.map(({ text }: { text: string }) => text);
  const read = corpusOf(texts.map((text, i) => ({ id: `${i}`, text })));
  const collected = await collect({
    hookPoint: "resid_post[3]",
    read,
    config: { skipFirst: 2 },
  });
  const [rows] = await rowsOf(collected);
  let row = 0;
  for (const i of texts.keys()) {
    const ids = await expected.ints(`${i}.ids`);
    const want = await expected.floats(`${i}.resid_post.3`);
    const n = ids.length - 2;
    const [from, to] = [row, row + n];
    deepEqual([...rows!.token_ids.subarray(from, to)], [...ids.subarray(2)]);
    deepEqual([...rows!.documents.subarray(from, to)], Array(n).fill(i));
    equal(rows!.positions[from], 2);
    equal(rows!.positions[to - 1], ids.length - 1);
    // bf16 keeps 8 bits; rounding is off by at most half of the last.
    assertClose(
      bf16ToF32(rows!.rows.subarray(from * 192, to * 192)),
      want.subarray(2 * 192),
      { rtol: 2 ** -8, atol: 1e-4, label: `resid_post[3] of text ${i}` },
    );
    row = to;
  }
  equal(rows!.n_rows, row);
  equal(collected.manifest.n_tokens, row);
});

Deno.test("collectResiduals() reads final_norm@l through the model's final norm", async () => {
  const config = { text: "storybook:101:1" };
  const streams = await collect({
    config,
    read: await story("storybook:101:1"),
  });
  const normed = await collect({
    config,
    read: await story("storybook:101:1"),
    hookPoint: "final_norm@1",
  });
  equal(normed.manifest.hookPoint, "final_norm@1");
  const model = await openModelFolder(directory(MODEL));
  const weight = await model.checkpoint.floats("model.norm.weight");
  const [stream] = await rowsOf(streams);
  const [got] = await rowsOf(normed);
  const x = bf16ToF32(stream!.rows);
  const want = x.map((value, i) => {
    const start = i - i % 192;
    const row = x.subarray(start, start + 192);
    const square = row.reduce((sum, v) => sum + v * v, 0) / 192;
    return value / Math.sqrt(square + 1e-6) * weight[i % 192]!;
  });
  // Two roundings to bf16, of 2⁻⁹ each at most.
  assertRelativeError(bf16ToF32(got!.rows), want, 2 ** -8, "final_norm@1");
});

Deno.test("collectResiduals() gives each token once, whatever the passes and shards", async () => {
  const one = await collect({
    config: { tokensPerPass: 4096, shardRows: 1e6 },
  });
  equal(one.manifest.shards.length, 1);
  const many = await collect();
  ok(many.manifest.shards.length >= 2);
  ok(many.manifest.done);
  equal(many.manifest.n_tokens, one.manifest.n_tokens);
  equal(many.manifest.n_documents, 12);
  const [whole] = await rowsOf(one);
  const parts = await rowsOf(many);
  for (const label of ["token_ids", "positions", "documents"] as const) {
    deepEqual(parts.flatMap((part) => [...part[label]]), [...whole![label]]);
  }
  // Products over other numbers of rows may round the last bit otherwise.
  assertRelativeError(
    parts.flatMap(({ rows }) => [...bf16ToF32(rows)]),
    bf16ToF32(whole!.rows),
    2 ** -9,
    "rows",
  );
});

Deno.test("collectResiduals() stops at the limits exactly", async () => {
  const { manifest } = await collect({ config: { maxDocuments: 5 } });
  equal(manifest.n_documents, 5);
  const whole = await collect();
  const cut = await collect({ config: { maxVectors: 217 } });
  equal(cut.manifest.n_tokens, 217);
  ok(cut.manifest.done);
  ok(cut.manifest.n_documents < 12);
  const all = (await rowsOf(whole)).flatMap(({ rows }) => [...rows]);
  const some = (await rowsOf(cut)).flatMap(({ rows }) => [...rows]);
  deepEqual(some, all.slice(0, 217 * 192));
});

Deno.test("collectResiduals() writes the same bytes when it is stopped after each shard and resumed", async () => {
  const straight = await collect();
  const files: Record<string, Uint8Array> = {};
  let nStops = 0;
  for (let isDone = false; !isDone;) {
    const controller = new AbortController();
    const run = collect({
      files,
      signal: controller.signal,
      onWrite(file): void {
        if (file === "manifest.json") controller.abort(new Error("stop"));
      },
    });
    isDone = await run.then(({ manifest }) => manifest.done, () => false);
    if (!isDone) nStops++;
    ok(nStops < 20);
  }
  ok(nStops >= 2);
  deepEqual(files, straight.files);
});

Deno.test("collectResiduals() goes on at the exact token of a packed text", async () => {
  const config = {
    pack: true,
    skipTokens: new Set([0]),
    contextLength: 40,
    layout: "list",
  } as const;
  const straight = await collect({ config });
  const nexts = straight.manifest.shards.map(({ next }) => next);
  // Shards end amid documents, or this would test nothing.
  ok(nexts.some((next) => next!.token > 0), JSON.stringify(nexts));
  const files: Record<string, Uint8Array> = {};
  for (let nStops = 0;;) {
    const controller = new AbortController();
    const run = collect({
      config,
      files,
      signal: controller.signal,
      onWrite: (file) => {
        if (file.startsWith("shard")) controller.abort(new Error("stop"));
      },
    });
    if (await run.then(({ manifest }) => manifest.done, () => false)) break;
    ok(++nStops < 20);
  }
  deepEqual(files, straight.files);
});

Deno.test("collectResiduals() of all shares gives each vector of the text once", async () => {
  const text = "storybook:101:600";
  const config = {
    maxDocuments: 520,
    contextLength: 8,
    tokensPerPass: 1024,
    shardRows: 1500,
  };
  const count = 3;
  const files: Record<string, Uint8Array> = {};
  for (let index = 0; index < count; index++) {
    const shard = { index, count };
    const { read } = await openCorpus(text, () => Promise.reject(), { shard });
    const { manifest } = await collect({ files, shard, read, config });
    ok(manifest.done);
  }
  const merged = await mergeTasks(memoryStore(files));
  equal(merged.n_documents, 520);
  const whole = await collect({ read: await story(text), config });
  const key = ({ documents, positions, token_ids }: Required<ResidualRows>) =>
    Array.from(
      documents,
      (document, i) => `${document}:${positions[i]}:${token_ids[i]}`,
    );
  const keys = async (of: Pick<Collected, "files">): Promise<string[]> =>
    (await rowsOf(of)).flatMap(key).sort();
  deepEqual(await keys({ files }), await keys(whole));
});

Deno.test("collectResiduals() ends a share without documents of its own with an empty manifest", async () => {
  const files: Record<string, Uint8Array> = {};
  const shard = { index: 2, count: 3 };
  const { manifest } = await collect({ files, shard, read: corpusOf([]) });
  deepEqual([manifest.shards, manifest.done], [[], true]);
  deepEqual(Object.keys(files), ["manifest_002-of-003.json"]);
});

Deno.test("collectResiduals() loses nothing when the disk is full, and goes on when it is not", async () => {
  const straight = await collect();
  const names = Object.keys(straight.files);
  for (const full of ["shard_00001.parquet", "manifest.json"]) {
    const files: Record<string, Uint8Array> = {};
    let nManifests = 0;
    await rejectsInOneLine(
      () =>
        collect({
          files,
          onWrite(file): void {
            if (file === "manifest.json") nManifests++;
            const isFull = file === full &&
              (file !== "manifest.json" || nManifests === 3);
            if (isFull) {
              throw new Error(`Cannot write "${file}": no space left`);
            }
          },
        }),
      /^Error: Cannot write ".*": no space left$/,
    );
    const folder = await ResidualFolder.open(memoryFolder("r", files));
    equal(folder.manifest.shards.length, 1);
    ok(Object.keys(files).length < names.length);
    await collect({ files });
    deepEqual(files, straight.files);
  }
});

Deno.test("collectResiduals() reads nothing more when the collection is complete", async () => {
  const { files, manifest } = await collect({
    read: await story("storybook:101:3"),
  });
  const again = await collect({
    files,
    read: corpusOf([]),
    onWrite: (file) => {
      throw new Error(`wrote ${file}`);
    },
  });
  deepEqual(again.manifest, manifest);
});

Deno.test("collectResiduals() names the document and the token when a vector is not finite", async () => {
  const model = await openModelFolder(directory(MODEL));
  const { ids } = model.tokenizer.encodeWithOffsets("one two dragon four");
  const broken = await withNanEmbedding(directory(MODEL), ids[2]!);
  const read = corpusOf(["one two", "one two dragon four"].map((text, i) => ({
    id: `${i}`,
    text,
  })));
  const written: string[] = [];
  // The start token is at position 0; attention carries the NaN no further back.
  await rejectsInOneLine(
    () => collect({ model: broken, read, onWrite: (f) => written.push(f) }),
    /^RangeError: Cannot write residuals: .*resid_post\[1\], document 1, position 3$/,
  );
  deepEqual(written, ["manifest.json"]);
});

/** The model with NaN in the embedding of one token. */
async function withNanEmbedding(
  folder: Folder,
  id: number,
): Promise<ModelFolder> {
  const files: Record<string, Uint8Array> = {};
  for (const name of await folder.list()) {
    const source = await folder.open(name);
    files[name] = await source.read(0, source.byteLength);
  }
  const weights = await Safetensors.open(
    await folder.open("model.safetensors"),
  );
  const { start } = weights.info("model.embed_tokens.weight");
  files["model.safetensors"]!.set([0xc0, 0x7f], start + id * 192 * 2);
  return await openModelFolder(memoryFolder("broken", files));
}

Deno.test("collectResiduals() refuses a text of which nothing is left, and leaves nothing of it", async () => {
  const files = {};
  await rejectsInOneLine(
    async () =>
      collect({
        files,
        read: await story("storybook:101:3"),
        config: { skipFirst: 48 },
      }),
    /^RangeError: Cannot collect from "storybook:101:12": expected contexts of more than 48 tokens: got none$/,
  );
  deepEqual(Object.keys(files), []);
});

Deno.test("collectResiduals() stops before the first pass when it is aborted already", async () => {
  const signal = AbortSignal.abort(new Error("stop"));
  await rejects(() => collect({ signal }), /stop/);
});
