import assert from "node:assert/strict";
import { directory } from "../../core/files.ts";
import { KvCache } from "../../core/kv_cache.ts";
import { Olmo2, Workspace } from "../../core/olmo2.ts";
import { readModelConfig } from "../../core/olmo2_config.ts";
import { type Checkpoint, openCheckpoint } from "../../core/safetensors.ts";
import { scoreSequences } from "../../core/score.ts";
import { tokenBatch, wholeSequences } from "../../core/token_batch.ts";
import type { Gpu } from "../../gpu/mod.ts";
import { assertClose } from "../assert_close.ts";
import { testGpu } from "../gpu_for_tests.ts";
import { rejectsInOneLine } from "../rejects_in_one_line.ts";

const MHA = directory("tests/fixtures/olmo2-mha-f32");
const GQA = directory("tests/fixtures/olmo2-gqa-bf16-sharded");

/** Logits of every token of some sequences, `[T, vocab]`. */
async function logitsOf(
  gpu: Gpu,
  folder = MHA,
  sequences: number[][] = [[5, 9, 2, 7], [11, 3, 8]],
) {
  const config = await readModelConfig(folder);
  using model = await Olmo2.load(gpu, await openCheckpoint(folder), config);
  const batch = wholeSequences(config, sequences);
  const T = batch.ids.length;
  using work = new Workspace(gpu, config, T);
  using cache = new KvCache(gpu, config, {
    nRows: sequences.length,
    nLayers: model.nLayers,
    isShared: true,
  });
  using normed = gpu.tensor("final_norm", "f32", [T, config.d_model]);
  using logits = gpu.tensor("logits", "f32", [T, config.vocab_size]);
  work.load(batch);
  cache.fit(sequences.map((ids) => ids.length));
  gpu.record("test", (rec) => {
    model.finalNorm(rec, model.forward(rec, work, cache), normed);
    model.logits(rec, normed, logits);
  });
  return await gpu.read(logits);
}

for (const folder of [MHA, GQA]) {
  Deno.test(`Olmo2 gives the same logits through row windows, ${folder.name}`, async () => {
    // 64 rows of 50 tokens' largest activation must fit: 64 · 4 · 2 · 112 bytes.
    using small = await testGpu({ maxBindingBytes: 60_000 });
    const got = await logitsOf(small, folder);
    const want = await logitsOf(await testGpu(), folder);
    // The embedding and the head span windows on the small device, so tiles and sums differ.
    assertClose(got, want, { atol: 1e-6, rtol: 1e-5, label: "logits" });
  });
}

Deno.test("Olmo2 reaches matrices beyond a binding through several buffers", async () => {
  using small = await testGpu({ maxBindingBytes: 20_000 });
  const config = await readModelConfig(MHA);
  const file = await openCheckpoint(MHA);
  // 131 rows of 192 bytes: two windows of at most 64 rows, and a rest.
  const bytes = await file.bytes("lm_head.weight");
  using head = small.tensor("lm_head.weight", "f32", [
    config.vocab_size,
    config.d_model,
  ]);
  head.write(bytes);
  assert.ok([...head.windows()].length > 1);
  assert.deepEqual(await small.readBytes(head), bytes);
});

Deno.test("Olmo2 keys at earlier positions are those that the cache holds", async () => {
  const gpu = await testGpu();
  const config = await readModelConfig(MHA);
  using model = await Olmo2.load(gpu, await openCheckpoint(MHA), config);
  using work = new Workspace(gpu, config, 8);
  using cache = new KvCache(gpu, config, {
    nRows: 2,
    nLayers: model.nLayers,
    isShared: false,
  });
  const ids = [5, 9, 2, 7, 30];
  assert.ok(cache.reserve(0, 5) && cache.reserve(1, 5));
  const last = async (parts: Parameters<typeof tokenBatch>[1]) => {
    work.load(tokenBatch(config, parts));
    gpu.record("test", (rec) => {
      model.forward(rec, work, cache);
    });
    const resid = await gpu.read(work.tokens.resid);
    return resid.slice(-config.d_model);
  };
  const whole = await last([{ ids, row: 0, position: 0 }]);
  await last([{ ids: ids.slice(0, 3), row: 1, position: 0 }]);
  const continued = await last([{ ids: ids.slice(3), row: 1, position: 3 }]);
  assertClose(continued, whole, {
    atol: 1e-6,
    rtol: 1e-5,
    label: "resid_post[3]",
  });
});

for (const isSoftware of [true, false]) {
  const kernels = isSoftware ? "software drivers" : "graphics cards";
  Deno.test(`Olmo2 gives a long prompt's logits in chunks of any size, by kernels of ${kernels}`, async () => {
    using gpu = await testGpu({ isSoftware });
    const config = { ...await readModelConfig(MHA), context_length: 512 };
    using model = await Olmo2.load(gpu, await openCheckpoint(MHA), config);
    const [n, vocab] = [300, config.vocab_size];
    const ids = Array.from({ length: n }, (_, i) => (i * i + 7 * i) % vocab);
    /** Logits of all tokens, with another row under way that holds pages between. */
    const run = async (nChunk: number) => {
      using work = new Workspace(gpu, config, nChunk + 1);
      const size = { nRows: 2, nLayers: model.nLayers, isShared: false };
      using cache = new KvCache(gpu, config, size);
      using normed = gpu.tensor("normed", "f32", [nChunk + 1, config.d_model]);
      using logits = gpu.tensor("logits", "f32", [nChunk + 1, vocab]);
      const all: number[] = [];
      for (let at = 0, other = 0; at < n; at += nChunk, other++) {
        const some = ids.slice(at, at + nChunk);
        assert.ok(cache.reserve(1, at + some.length));
        assert.ok(cache.reserve(0, other + 1));
        work.load(tokenBatch(config, [
          { ids: some, row: 1, position: at },
          { ids: [other], row: 0, position: other },
        ]));
        gpu.record("test", (rec) => {
          const resid = model.forward(rec, work, cache);
          const x = normed.rows(0, resid.nRows);
          model.finalNorm(rec, resid, x);
          model.logits(rec, x, logits.rows(0, resid.nRows));
        });
        const values = await gpu.read(logits);
        all.push(...values.subarray(0, some.length * vocab));
      }
      return all;
    };
    const whole = await run(300);
    for (const nChunk of isSoftware ? [7, 64] : [64]) {
      // Products of other sizes add in another order; on cards, so do the keys of few tokens, which the norms of four
      // blocks amplify.
      const limit = isSoftware ? 1e-6 : 1e-5;
      assertClose(await run(nChunk), whole, {
        atol: limit,
        rtol: limit,
        label: `logits in chunks of ${nChunk}`,
        shape: [n, vocab],
      });
    }
  });
}

Deno.test("Olmo2.load() loads only the blocks that are asked for", async () => {
  const gpu = await testGpu();
  const config = await readModelConfig(MHA);
  using model = await Olmo2.load(gpu, await openCheckpoint(MHA), config, {
    nLayers: 2,
    withHead: false,
  });
  assert.equal(model.nLayers, 2);
  using x = gpu.tensor("x", "f32", [1, config.d_model]);
  using logits = gpu.tensor("logits", "f32", [1, config.vocab_size]);
  assert.throws(
    () => gpu.record("test", (rec) => model.logits(rec, x, logits)),
    /loaded without its head/,
  );
});

Deno.test("Olmo2.load() uses the embedding as the head when the config ties them", async () => {
  const gpu = await testGpu();
  const config = { ...await readModelConfig(MHA), tied_embeddings: true };
  const file = await openCheckpoint(MHA);
  using model = await Olmo2.load(gpu, file, config);
  const row = 3;
  const table = await file.floats("model.embed_tokens.weight");
  using x = gpu.floats(
    "x",
    [1, config.d_model],
    table.slice(row * config.d_model, (row + 1) * config.d_model),
  );
  using logits = gpu.tensor("logits", "f32", [1, config.vocab_size]);
  gpu.record("test", (rec) => model.logits(rec, x, logits));
  const want = Array.from({ length: config.vocab_size }, (_, v) => {
    let sum = 0;
    for (let j = 0; j < config.d_model; j++) {
      sum += table[row * config.d_model + j]! * table[v * config.d_model + j]!;
    }
    return sum;
  });
  assertClose(await gpu.read(logits), want, {
    atol: 1e-6,
    rtol: 1e-5,
    label: "logits",
  });
});

Deno.test("Olmo2.load() names file and tensor when a shape does not fit the config", async () => {
  const gpu = await testGpu();
  const config = { ...await readModelConfig(MHA), d_ffn: 81 };
  const file = await openCheckpoint(MHA);
  const before = gpu.allocatedBytes;
  await rejectsInOneLine(
    () => Olmo2.load(gpu, file, config),
    /TypeError: Cannot load ".*olmo2-mha-f32\/model.safetensors": tensor "model.layers.0.mlp.gate_proj.weight" must be F32, BF16 or F16 \[81, 48\], .*: got F32 \[80, 48\]: check that/,
  );
  assert.equal(gpu.allocatedBytes, before);
});

Deno.test("Olmo2.load() frees what it took when a shard cannot be read to its end", async () => {
  const gpu = await testGpu();
  const config = await readModelConfig(MHA);
  const file = await openCheckpoint(MHA);
  const broken: Checkpoint = {
    ...file,
    bytes: (name, start, end) =>
      name.includes("layers.2")
        ? Promise.reject(new RangeError("Cannot read: cut off"))
        : file.bytes(name, start, end),
  };
  const before = gpu.allocatedBytes;
  await assert.rejects(() => Olmo2.load(gpu, broken, config), /cut off/);
  assert.equal(gpu.allocatedBytes, before);
});

Deno.test("tokenBatch() refuses ids and lengths that the model does not have", async () => {
  const config = await readModelConfig(MHA);
  assert.throws(
    () => wholeSequences(config, [[1, 131]]),
    /Cannot run token 131: expected an id from 0 to 130/,
  );
  assert.throws(
    () => wholeSequences(config, [Array(65).fill(1)]),
    /sequence of 65 tokens: the model's context is 64/,
  );
  assert.throws(() => wholeSequences(config, [[]]), /at least one token/);
});

Deno.test("scoreSequences() gives the nats of every next token, in passes of any size", async () => {
  const gpu = await testGpu();
  const config = await readModelConfig(MHA);
  using model = await Olmo2.load(gpu, await openCheckpoint(MHA), config);
  const sequences = [[5, 9, 2, 7], [11, 3, 8], [1, 2], [
    60,
    61,
    62,
    63,
    64,
    65,
  ]];
  const logits = await logitsOf(gpu, MHA, sequences);
  const nats = (row: number, id: number) => {
    const values = [
      ...logits.subarray(
        row * config.vocab_size,
        (row + 1) * config.vocab_size,
      ),
    ];
    const most = Math.max(...values);
    return most +
      Math.log(values.reduce((sum, value) => sum + Math.exp(value - most), 0)) -
      values[id]!;
  };
  let row = 0;
  const want = sequences.map((ids) => {
    const values = ids.slice(1).map((id, i) => nats(row + i, id));
    row += ids.length;
    return values;
  });
  for (const tokensPerPass of [1, 7, 2048]) {
    const got = await scoreSequences(model, sequences, { tokensPerPass });
    assert.deepEqual(got.map(({ length }) => length), [3, 2, 1, 5]);
    // f32 sums over a vocabulary of 131.
    assertClose(got.flatMap((v) => [...v]), want.flat(), {
      atol: 1e-5,
      label: `nats, ${tokensPerPass} a pass`,
    });
  }
});

Deno.test("Olmo2.load() refuses a context whose rotary angles exceed a binding", async () => {
  const config = await readModelConfig(MHA);
  const checkpoint = await openCheckpoint(MHA);
  using small = await testGpu({ maxBindingBytes: 60_000 });
  // 1250 positions of 12 values of 4 bytes fit.
  await rejectsInOneLine(
    () => Olmo2.load(small, checkpoint, { ...config, context_length: 1251 }),
    /^RangeError: .*: set max_position_embeddings to 1250 or less$/,
  );
});

Deno.test("Workspace says how many tokens fit when its activations exceed a binding", async () => {
  using small = await testGpu({ maxBindingBytes: 60_000 });
  const config = await readModelConfig(MHA);
  const before = small.allocatedBytes;
  // The widest are gate and up: 2 · 80 values of 4 bytes a token.
  assert.throws(
    () => new Workspace(small, config, 94),
    /RangeError: Cannot run 94 tokens at once: .* beyond 93 tokens/,
  );
  assert.equal(small.allocatedBytes, before);
  new Workspace(small, config, 93)[Symbol.dispose]();
});
