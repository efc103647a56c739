import assert from "node:assert/strict";
import { directory } from "../../core/files.ts";
import type { HookPoint } from "../../core/hook_point.ts";
import { KvCache } from "../../core/kv_cache.ts";
import { Olmo2, Workspace } from "../../core/olmo2.ts";
import { readModelConfig } from "../../core/olmo2_config.ts";
import { Rng } from "../../core/rng.ts";
import { Sae, type SaeRows } from "../../core/sae.ts";
import { openCheckpoint } from "../../core/safetensors.ts";
import type { SaeWeights } from "../../core/sae_file.ts";
import { wholeSequences } from "../../core/token_batch.ts";
import { Gpu } from "../../gpu/mod.ts";
import {
  type ActivationOptions,
  featureActivations,
  joinRows,
  rowsOf,
  type SparseActivations,
} from "../../steer/activations.ts";
import { assertClose, randomNormal } from "../assert_close.ts";
import { testGpu } from "../gpu_for_tests.ts";
import { rejectsInOneLine } from "../rejects_in_one_line.ts";

const FIXTURE = new URL("../fixtures/olmo2-mha-f32", import.meta.url).pathname;
const LAYER = 1;

async function loadModel(gpu: Gpu): Promise<Olmo2> {
  const folder = directory(FIXTURE);
  const config = await readModelConfig(folder);
  const options = { nLayers: LAYER + 1, withHead: false };
  return await Olmo2.load(gpu, await openCheckpoint(folder), config, options);
}

/** Random weights; the larger the bias, the more fires. */
function randomWeights(
  d_model: number,
  d_sae: number,
  bias: number,
): SaeWeights {
  return {
    d_model,
    d_sae,
    W_enc: randomNormal(d_sae * d_model, 1, 1 / Math.sqrt(d_model)),
    b_enc: new Float32Array(d_sae).fill(bias),
    W_dec: randomNormal(d_sae * d_model, 2),
    b_dec: new Float32Array(d_model),
  };
}

async function loadSae(
  gpu: Gpu,
  weights: SaeWeights,
  rest: Pick<SaeRows, "architecture" | "k"> = {},
): Promise<Sae> {
  const { d_model, d_sae } = weights;
  const rows = (W: Float32Array, start: number, end: number) =>
    Promise.resolve(W.slice(start * d_model, end * d_model));
  return await Sae.load(gpu, {
    d_model,
    d_sae,
    ...rest,
    rowsOfEncoder: (start, end) => rows(weights.W_enc, start, end),
    rowsOfDecoder: (start, end) => rows(weights.W_dec, start, end),
    b_enc: () => Promise.resolve(weights.b_enc.slice()),
    b_dec: () => Promise.resolve(weights.b_dec.slice()),
  });
}

/** Sequences of these lengths. */
function randomSequences(
  vocab: number,
  lengths: readonly number[],
): { ids: number[] }[] {
  const rng = new Rng(3);
  return lengths.map((length) => ({
    ids: Array.from({ length }, () => rng.below(vocab)),
  }));
}

/** What the SAE reads on one sequence, f32 `[T, d_model]`, by a pass of its own. */
async function readHook(
  model: Olmo2,
  hookPoint: HookPoint,
  ids: readonly number[],
): Promise<Float32Array> {
  const { gpu, config } = model;
  const T = ids.length;
  using work = new Workspace(gpu, config, T);
  const options = { nRows: 1, nLayers: LAYER + 1, isShared: false };
  using cache = new KvCache(gpu, config, options);
  using x = gpu.tensor("x", "f32", [T, config.d_model]);
  work.load(wholeSequences(config, [ids]));
  cache.fit([T]);
  gpu.record("read", (rec) => {
    const resid = model.forward(rec, work, cache, { nLayers: LAYER + 1 });
    if (hookPoint.startsWith("final_norm")) model.finalNorm(rec, resid, x);
    else rec.copy(resid, x);
  });
  return await gpu.read(x);
}

/** relu(x·W_encᵀ + b_enc) in float64, `[T, d_sae]`. */
function encode(x: Float32Array, weights: SaeWeights): Float64Array {
  const { d_model, d_sae, W_enc, b_enc } = weights;
  const T = x.length / d_model;
  const acts = new Float64Array(T * d_sae);
  for (let t = 0; t < T; t++) {
    for (let i = 0; i < d_sae; i++) {
      let sum = b_enc[i]!;
      for (let j = 0; j < d_model; j++) {
        sum += x[t * d_model + j]! * W_enc[i * d_model + j]!;
      }
      acts[t * d_sae + i] = Math.max(0, sum);
    }
  }
  return acts;
}

/** Rows with their zeros; fails unless features rise within each row. */
function dense(
  { offsets, features, values }: SparseActivations,
  d_sae: number,
): Float64Array {
  const rows = new Float64Array((offsets.length - 1) * d_sae);
  for (let t = 0; t + 1 < offsets.length; t++) {
    let before = -1;
    for (let k = offsets[t]!; k < offsets[t + 1]!; k++) {
      assert.ok(features[k]! > before, `row ${t} is not in order`);
      before = features[k]!;
      rows[t * d_sae + before] = values[k]!;
    }
  }
  return rows;
}

/** Compares all rows with float64, sequence by sequence; returns the largest number of features on a token. */
async function compare(
  gpu: Gpu,
  { d_sae, bias, hookPoint }: {
    d_sae: number;
    bias: number;
    hookPoint: HookPoint;
  },
  options: ActivationOptions = {},
): Promise<number> {
  using model = await loadModel(gpu);
  const { d_model, vocab_size } = model.config;
  const weights = randomWeights(d_model, d_sae, bias);
  using sae = await loadSae(gpu, weights);
  const sequences = randomSequences(vocab_size, [5, 1, 17, 30, 2, 9]);
  const skip = options.skipFirst ?? 1;
  let most = 0;
  let n = 0;
  const passes = featureActivations(
    model,
    sae,
    hookPoint,
    sequences,
    options,
  );
  for await (const { sequence, acts } of passes) {
    assert.equal(sequence, sequences[n++]);
    const x = await readHook(model, hookPoint, sequence.ids);
    const want = encode(x.slice(skip * d_model), weights);
    assert.equal(acts.offsets.length - 1, sequence.ids.length - skip);
    if (want.length === 0) continue;
    // f32 dots of up to 64 terms below 4, in passes of other sizes: 64 · 4 · 2⁻²⁴ ≈ 2e-5.
    const closeness = { atol: 3e-5, rtol: 1e-5, label: "acts" };
    assertClose(dense(acts, d_sae), want, closeness);
    for (let t = 0; t + 1 < acts.offsets.length; t++) {
      most = Math.max(most, acts.offsets[t + 1]! - acts.offsets[t]!);
    }
  }
  assert.equal(n, sequences.length);
  assert.ok(most > 0, "nothing fires");
  return most;
}

for (const hookPoint of ["resid_post[1]", "final_norm@1"] as const) {
  Deno.test(`featureActivations() matches float64 at ${hookPoint}, over several passes`, async () => {
    const size = { d_sae: 331, bias: -1, hookPoint };
    await compare(await testGpu(), size, { tokensPerPass: 32 });
  });
}

Deno.test("featureActivations() gives the first tokens too when skipFirst is 0", async () => {
  const size = { d_sae: 65, bias: -1, hookPoint: "resid_post[1]" } as const;
  await compare(await testGpu(), size, { skipFirst: 0 });
});

Deno.test("featureActivations() drops nothing when more features fire than lists have room for", async () => {
  const size = { d_sae: 700, bias: 0.5, hookPoint: "resid_post[1]" } as const;
  const most = await compare(await testGpu(), size, { tokensPerPass: 32 });
  assert.ok(most > 256, `only ${most} fire`);
});

Deno.test("featureActivations() matches float64 when the SAE spans several windows", async () => {
  using gpu = await Gpu.open({ maxBindingBytes: 140_000 });
  const size = { d_sae: 1000, bias: -1, hookPoint: "resid_post[1]" } as const;
  await compare(gpu, size, { tokensPerPass: 32 });
});

Deno.test("featureActivations() gives the k largest of each token for topk, over windows too", async () => {
  using narrow = await Gpu.open({ maxBindingBytes: 140_000 });
  const k = 5;
  for (const gpu of [await testGpu(), narrow]) {
    using model = await loadModel(gpu);
    const { d_model, vocab_size } = model.config;
    const weights = randomWeights(d_model, 1000, -0.5);
    using relu = await loadSae(gpu, weights);
    using topk = await loadSae(gpu, weights, { architecture: "topk", k });
    assert.equal(topk.windows(32).length > 1, gpu === narrow);
    const sequences = randomSequences(vocab_size, [5, 17, 30]);
    const hook = "resid_post[1]";
    const run = async (sae: Sae): Promise<SparseActivations> => {
      const options = { tokensPerPass: 32 };
      const all = featureActivations(model, sae, hook, sequences, options);
      return joinRows((await Array.fromAsync(all)).map(({ acts }) => acts));
    };
    const want = dense(await run(relu), 1000);
    const acts = dense(await run(topk), 1000);
    for (let at = 0; at < want.length; at += 1000) {
      const row = want.subarray(at, at + 1000);
      const threshold = row.toSorted().at(-k)!;
      assert.ok(threshold > 0);
      assert.deepEqual(
        acts.subarray(at, at + 1000),
        row.map((act) => act >= threshold ? act : 0),
      );
    }
  }
});

Deno.test("featureActivations() says what to do when what fires exceeds a binding", async () => {
  using gpu = await Gpu.open({ maxBindingBytes: 140_000 });
  const size = { d_sae: 1000, bias: 9, hookPoint: "resid_post[1]" } as const;
  await rejectsInOneLine(
    () => compare(gpu, size, { tokensPerPass: 32 }),
    /^RangeError: Cannot list the features that fire: .*1000 a token on 32 tokens take 256128 bytes.*: take fewer tokens a pass, or an SAE with a lower L0$/,
  );
});

Deno.test("featureActivations() refuses an SAE or a sequence that does not fit", async () => {
  const gpu = await testGpu();
  using model = await loadModel(gpu);
  const { d_model } = model.config;
  using sae = await loadSae(gpu, randomWeights(d_model, 9, 0));
  using wide = await loadSae(gpu, randomWeights(d_model + 4, 9, 0));
  const run = (given: Sae, hookPoint: HookPoint, length: number) => () => {
    const sequences = [{ ids: Array<number>(length).fill(1) }];
    const options = { tokensPerPass: 8 };
    return Array.fromAsync(
      featureActivations(model, given, hookPoint, sequences, options),
    );
  };
  await rejectsInOneLine(
    run(wide, "resid_post[1]", 3),
    /^RangeError: .*expected an SAE of d_model \d+ behind one of 2 layers: got d_model \d+ /,
  );
  await rejectsInOneLine(
    run(sae, "resid_post[2]", 3),
    /^RangeError: Cannot encode resid_post\[2\]: .* behind layer 2: /,
  );
  await rejectsInOneLine(
    run(sae, "resid_post[1]", 9),
    /^RangeError: Cannot run 9 tokens at once: the workspace holds 8$/,
  );
});

Deno.test("rowsOf() takes what joinRows() joined apart again", () => {
  const parts: SparseActivations[] = [
    {
      offsets: Uint32Array.of(0, 2, 2),
      features: Uint32Array.of(4, 7),
      values: Float32Array.of(1, 2),
    },
    {
      offsets: Uint32Array.of(0),
      features: new Uint32Array(0),
      values: new Float32Array(0),
    },
    {
      offsets: Uint32Array.of(0, 1, 3),
      features: Uint32Array.of(0, 1, 5),
      values: Float32Array.of(3, 4, 5),
    },
  ];
  const joined = joinRows(parts);
  assert.deepEqual(joined.offsets, Uint32Array.of(0, 2, 2, 3, 5));
  assert.deepEqual(rowsOf(joined, 0, 2), parts[0]);
  assert.deepEqual(rowsOf(joined, 2, 2), parts[1]);
  assert.deepEqual(rowsOf(joined, 2, 4), parts[2]);
});
