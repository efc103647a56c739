import assert from "node:assert/strict";
import { directory } from "../../core/files.ts";
import { KvCache, PAGE_TOKENS } from "../../core/kv_cache.ts";
import { Olmo2, Workspace } from "../../core/olmo2.ts";
import { type Olmo2Config, readModelConfig } from "../../core/olmo2_config.ts";
import { openCheckpoint } from "../../core/safetensors.ts";
import { type SequencePart, tokenBatch } from "../../core/token_batch.ts";
import type { Gpu } from "../../gpu/mod.ts";
import { randomNormal } from "../assert_close.ts";
import { testGpu } from "../gpu_for_tests.ts";

const MHA = directory("tests/fixtures/olmo2-mha-f32");

/** A cache of two blocks for rows of up to 4 pages. */
async function smallCache(
  gpu: Gpu,
  options: Partial<ConstructorParameters<typeof KvCache>[2]> = {},
): Promise<{ cache: KvCache; config: Olmo2Config }> {
  const config = await readModelConfig(MHA);
  assert.equal(config.context_length, 4 * PAGE_TOKENS);
  const size = { nRows: 3, nLayers: 2, isShared: false, ...options };
  return { cache: new KvCache(gpu, config, size), config };
}

Deno.test("KvCache gives rows the lowest free pages, and those of rows that left to others", async () => {
  const gpu = await testGpu();
  using cache = (await smallCache(gpu)).cache;
  assert.deepEqual(cache.table.shape, [3, 4]);
  assert.ok(cache.reserve(0, 17));
  assert.ok(cache.reserve(1, 1));
  assert.ok(cache.reserve(0, 33));
  assert.ok(cache.reserve(0, 5), "a row that holds more");
  assert.equal(cache.nTokensHeld, 4 * PAGE_TOKENS);
  const table = async () => [...await gpu.readInts(cache.table)];
  assert.deepEqual(await table(), [0, 1, 3, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
  cache.release(0);
  assert.equal(cache.nTokensHeld, PAGE_TOKENS);
  assert.ok(cache.reserve(2, 64));
  assert.deepEqual((await table()).slice(8), [0, 1, 3, 4]);
  assert.equal(cache.nPages, 5 + cache.nPagesFree);
  cache.releaseAll();
  assert.equal(cache.nTokensHeld, 0);
  assert.ok(cache.reserve(1, 16));
  assert.deepEqual((await table()).slice(4, 8), [0, 0, 0, 0]);
});

Deno.test("KvCache takes memory as it is used, and keeps keys and values when it grows", async () => {
  using gpu = await testGpu({});
  const { cache, config } = await smallCache(gpu);
  using _cache = cache;
  const d_kv = config.n_kv_heads * config.d_head;
  const held = () => gpu.allocatedBytes - cache.table.byteLength;
  const pageBytes = 4 * 4 * PAGE_TOKENS * d_kv; // K and V of two blocks
  assert.equal(held(), pageBytes);
  assert.ok(cache.reserve(0, 40));
  assert.equal(held(), 3 * pageBytes);
  const tensors = () => [0, 1].flatMap((l) => [cache.keys(l), cache.values(l)]);
  const values = tensors().map(({ shape }, i) => {
    assert.deepEqual(shape, [3 * PAGE_TOKENS, d_kv]);
    return randomNormal(3 * PAGE_TOKENS * d_kv, 100 + i, 1);
  });
  tensors().forEach((tensor, i) => tensor.write(values[i]!));
  assert.ok(cache.reserve(1, 33));
  // Half as much again is not enough.
  assert.equal(cache.nPages, 6);
  assert.equal(held(), 6 * pageBytes);
  // Three of the four tensors have grown when the last one, old and new, is there twice.
  assert.equal(
    gpu.peakBytes - cache.table.byteLength,
    6 * pageBytes + 3 * pageBytes / 4,
  );
  for (const [i, tensor] of tensors().entries()) {
    const now = await gpu.read(tensor);
    assert.deepEqual(now.slice(0, values[i]!.length), values[i]);
  }
  assert.ok(cache.reserve(2, 1));
  assert.equal(cache.nPages, 9, "half as much again");
});

Deno.test("KvCache holds no more than it was told to, or than a binding holds", async () => {
  using gpu = await testGpu({});
  using cache = (await smallCache(gpu, { maxTokens: 70 })).cache;
  assert.equal(cache.maxTokens, 80);
  assert.ok(cache.reserve(0, 64));
  const before = [cache.nPages, cache.nTokensHeld, gpu.allocatedBytes];
  assert.equal(cache.reserve(1, 17), false);
  assert.deepEqual(
    [cache.nPages, cache.nTokensHeld, gpu.allocatedBytes],
    before,
  );
  assert.ok(cache.reserve(1, 16));
  assert.equal(cache.nPages, 5);
  assert.equal(cache.reserve(2, 1), false);
  cache.release(0);
  assert.ok(cache.reserve(2, 50));

  // A page of keys takes 16 · 48 · 4 bytes: three fit.
  using small = await testGpu({ maxBindingBytes: 9999 });
  using bound = (await smallCache(small)).cache;
  assert.equal(bound.maxTokens, 48);
  assert.ok(bound.reserve(0, 48));
  assert.equal(bound.reserve(1, 1), false);
  assert.ok(bound.keys(0).isBindable);
});

Deno.test("KvCache.fit() makes room for whole sequences, also for more than it had rows", async () => {
  const gpu = await testGpu();
  using cache = (await smallCache(gpu, { nRows: 1, maxTokens: 96 })).cache;
  cache.fit([20, 1, 16]);
  assert.equal(cache.nTokensHeld, 4 * PAGE_TOKENS);
  assert.deepEqual(
    [...await gpu.readInts(cache.table)],
    [0, 1, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0],
  );
  cache.fit([1, 17]);
  assert.deepEqual(
    [...await gpu.readInts(cache.table)].slice(0, 8),
    [0, 0, 0, 0, 1, 2, 0, 0],
  );
  assert.equal(cache.nTokensHeld, 3 * PAGE_TOKENS);
  assert.throws(
    () => cache.fit([64, 33]),
    /RangeError: Cannot cache 2 sequences of 112 tokens in whole pages: at most 96 fit: use fewer/,
  );
  assert.equal(cache.nTokensHeld, 0);
});

Deno.test("KvCache refuses rows and lengths that cannot be, and adapters that hold no page", async () => {
  const gpu = await testGpu();
  const { cache, config } = await smallCache(gpu);
  using _cache = cache;
  assert.throws(
    () => cache.reserve(3, 1),
    /Cannot reserve row 3 of a cache: expected a row from 0 to 2/,
  );
  assert.throws(
    () => cache.reserve(0, 65),
    /Cannot cache a sequence of 65 tokens: the model's context is 64/,
  );
  using tiny = await testGpu({ maxBindingBytes: 3000 });
  const size = { nRows: 1, nLayers: 1, isShared: true };
  assert.throws(
    () => new KvCache(tiny, config, size),
    /RangeError: Cannot cache 16 tokens: .* exceed the adapter's binding limit of 3000 bytes/,
  );
  assert.equal(tiny.allocatedBytes, 0);
});

Deno.test("decoding over a cache that grows, while rows join and leave, gives the same bits as over one that had room", async () => {
  const gpu = await testGpu();
  const config = await readModelConfig(MHA);
  using model = await Olmo2.load(gpu, await openCheckpoint(MHA), config);
  const [a, b, c] = [[5, 9, 2, 7], [11, 3, 8], [60, 61]] as const;
  /** Feeds a token to each row in every step; row 1 leaves for row 2 half-way. */
  const run = async (isRoomy: boolean) => {
    using work = new Workspace(gpu, config, 8);
    const size = { nRows: 3, nLayers: model.nLayers, isShared: false };
    using cache = new KvCache(gpu, config, size);
    if (isRoomy) {
      for (const row of [0, 1, 2]) assert.ok(cache.reserve(row, 64));
    }
    const grown = new Set<number>();
    const pass = async (parts: readonly SequencePart[]) => {
      if (!isRoomy) {
        for (const { row, position, ids } of parts) {
          assert.ok(cache.reserve(row, position + ids.length));
        }
      }
      grown.add(cache.nPages);
      work.load(tokenBatch(config, parts));
      gpu.record("test", (rec) => {
        model.forward(rec, work, cache);
      });
      return [...await gpu.read(work.tokens.resid)];
    };
    const resid = [
      ...await pass([{ ids: a, row: 0, position: 0 }]),
      ...await pass([{ ids: b, row: 1, position: 0 }]),
    ];
    for (let step = 0; step < 36; step++) {
      const joined = step - 18;
      if (joined === 0) {
        cache.release(1);
        resid.push(...await pass([{ ids: c, row: 2, position: 0 }]));
      }
      const other = joined < 0
        ? { ids: [step + 50], row: 1, position: 3 + step }
        : { ids: [step + 70], row: 2, position: 2 + joined };
      resid.push(
        ...await pass([{ ids: [step], row: 0, position: 4 + step }, other]),
      );
    }
    return { resid, nSizes: grown.size };
  };
  const [roomy, growing] = [await run(true), await run(false)];
  assert.equal(roomy.nSizes, 1);
  assert.ok(growing.nSizes >= 3, "the cache has grown");
  assert.ok(roomy.resid.every(Number.isFinite));
  assert.deepEqual(growing.resid, roomy.resid);
});
