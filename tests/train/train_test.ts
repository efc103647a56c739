import { deepEqual, equal, ok, rejects } from "node:assert/strict";
import { bf16ToF32, f32ToBf16 } from "../../core/dtype.ts";
import { Rng } from "../../core/rng.ts";
import { Sae } from "../../core/sae.ts";
import { SaeFile } from "../../core/sae_file.ts";
import { memoryFolder, memorySource } from "../../core/source.ts";
import type { Gpu } from "../../gpu/mod.ts";
import { Batches, type RowGroups } from "../../train/batches.ts";
import { CHECKPOINT_FILE } from "../../train/checkpoint.ts";
import { densityHistogram, evaluateResiduals } from "../../train/evaluate.ts";
import { parseRecipe, type SaeRecipe } from "../../train/recipe.ts";
import {
  type TrainOptions,
  type TrainProgress,
  trainSae,
} from "../../train/train.ts";
import { assertClose } from "../assert_close.ts";
import { testGpu } from "../gpu_for_tests.ts";
import { forward } from "../reference/sae_reference.ts";

const D = 16;
const N_TRUE = 24;

/** Vectors that are sums of 2 of 24 directions, around a mean, like what an SAE is for. */
function sparseData(nRows: number, groupRows: number): RowGroups {
  const rng = new Rng(5);
  const normals = (n: number) =>
    Float64Array.from({ length: n }, () => rng.normal());
  const directions = Array.from({ length: N_TRUE }, () => normals(D));
  const mean = normals(D);
  const rows = new Float32Array(nRows * D);
  for (let t = 0; t < nRows; t++) {
    for (let j = 0; j < D; j++) rows[t * D + j] = 3 * mean[j]!;
    for (let k = 0; k < 2; k++) {
      const direction = directions[rng.below(N_TRUE)]!;
      const strength = 2 + rng.uniform();
      for (let j = 0; j < D; j++) rows[t * D + j]! += strength * direction[j]!;
    }
  }
  const bits = f32ToBf16(rows);
  const sizes: number[] = [];
  for (let at = 0; at < nRows; at += groupRows) {
    sizes.push(Math.min(groupRows, nRows - at));
  }
  return {
    name: "sparse",
    d_model: D,
    sizes,
    read: (group) =>
      Promise.resolve(
        bits.slice(
          group * groupRows * D,
          (group * groupRows + sizes[group]!) * D,
        ),
      ),
  };
}

const RECIPE: SaeRecipe = parseRecipe({
  d_sae: 40,
  steps: 20,
  batch: 32,
  lr: 3e-3,
  lambda: 0.3,
  bufferRows: 200,
  holdOut: 50,
  seed: 1,
}, "recipe");

const METADATA = { hookPoint: "resid_post[3]", modelName: "tiny" } as const;

/** Runs in memory; what is written lies in `files`. */
async function run(
  gpu: Gpu,
  data: RowGroups,
  recipe: SaeRecipe,
  options: Partial<TrainOptions> = {},
) {
  const files: Record<string, Uint8Array> = {};
  const history: TrainProgress[] = [];
  const result = await trainSae({
    gpu,
    batches: await Batches.open(data, recipe),
    recipe,
    metadata: METADATA,
    write: async (file, content) => {
      const stream =
        typeof content === "string" || content instanceof Uint8Array
          ? content as BodyInit
          : ReadableStream.from(content);
      files[file] = await new Response(stream).bytes();
    },
    metricsEvery: 1,
    ...options,
    onProgress: (progress) => {
      history.push(progress);
      options.onProgress?.(progress);
    },
  });
  return { files, history, result };
}

Deno.test("trainSae() gives the same bits in 20 steps as in 10, a checkpoint and 10", async () => {
  const gpu = await testGpu();
  for (const bufferRows of [200, 5000]) {
    const recipe = { ...RECIPE, bufferRows };
    const data = sparseData(1000, 64);
    const straight = await run(gpu, data, recipe, { checkpointEvery: 10 });
    equal(straight.result.isDone, true);
    const bytes = straight.files[CHECKPOINT_FILE]!;
    const checkpoint = memorySource("checkpoint", bytes);
    const resumed = await run(gpu, data, recipe, { checkpoint });
    const file = "sae_weights.safetensors";
    deepEqual(resumed.files[file], straight.files[file]);
    const metrics = ({ history }: typeof straight) =>
      history.map((p) => p.metrics);
    deepEqual(metrics(resumed), metrics(straight).slice(10));
    equal(metrics(straight).length, 20);
    equal(metrics(straight)[0]!.lambda, 0);
  }
});

Deno.test("trainSae() stops at a signal with a checkpoint that leads to the same SAE", async () => {
  const gpu = await testGpu();
  const data = sparseData(1000, 64);
  const controller = new AbortController();
  const stopped = await run(gpu, data, RECIPE, {
    signal: controller.signal,
    onProgress: () => controller.abort(),
  });
  equal(stopped.result.isDone, false);
  ok(stopped.result.step < 20, `${stopped.result.step} steps`);
  deepEqual(Object.keys(stopped.files), [CHECKPOINT_FILE]);
  const bytes = stopped.files[CHECKPOINT_FILE]!;
  const checkpoint = memorySource("checkpoint", bytes);
  const resumed = await run(gpu, data, RECIPE, { checkpoint });
  const straight = await run(gpu, data, RECIPE);
  deepEqual(resumed.files, straight.files);
  await rejects(
    run(gpu, data, { ...RECIPE, lambda: 2 }, { checkpoint }),
    /Cannot resume from "checkpoint": expected lambda 0.3, with which it was trained: got 2/,
  );
  await rejects(
    run(gpu, sparseData(1001, 64), RECIPE, { checkpoint }),
    /expected n 950, with which it was trained: got 951/,
  );
  const wrong = memorySource(
    "wrong",
    straight.files["sae_weights.safetensors"]!,
  );
  await rejects(
    run(gpu, data, RECIPE, { checkpoint: wrong }),
    /^SyntaxError: Cannot read "wrong"/,
  );
});

Deno.test("trainSae() learns sparse data, and the saved SAE takes and gives raw vectors", async () => {
  const gpu = await testGpu();
  const data = sparseData(4000, 512);
  const recipe = { ...RECIPE, steps: 600, batch: 64, holdOut: 500, lr: 1e-2 };
  const { files, history, result } = await run(gpu, data, recipe, {
    metricsEvery: 100,
  });
  equal(history.at(-1)!.metrics.step, 599);
  ok(result.deadShare < 0.5, `dead ${result.deadShare}`);
  equal(result.deadWindow, 600 * 64);
  const file = await SaeFile.open(memoryFolder("sae", files));
  equal(file.metadata.nTokensTrained, 600 * 64);
  equal(file.metadata.hookPoint, "resid_post[3]");
  using sae = await Sae.load(gpu, file);
  const batches = await Batches.open(data, recipe);
  const evaluation = await evaluateResiduals(gpu, sae, batches.heldOut());
  equal(evaluation.nTokens, 500);
  // Two of 24 directions at a time: far better than the mean, and sparse.
  ok(evaluation.fvu < 0.1, `FVU ${evaluation.fvu}`);
  ok(evaluation.L0 < 8, `L0 ${evaluation.L0}`);
  await matchesReference(file, batches, evaluation);
});

async function matchesReference(
  file: SaeFile,
  batches: Batches,
  got: Awaited<ReturnType<typeof evaluateResiduals>>,
): Promise<void> {
  const rows: number[] = [];
  for await (const run of batches.heldOut()) rows.push(...bf16ToF32(run));
  const n = rows.length / D;
  const weights = await file.weights();
  const { acts, reconstruction } = forward(
    {
      W_enc: Float64Array.from(weights.W_enc),
      b_enc: Float64Array.from(weights.b_enc),
      W_dec: Float64Array.from(weights.W_dec),
      b_dec: Float64Array.from(weights.b_dec),
    },
    rows,
    { B: n, d_model: D, d_sae: file.d_sae },
  );
  const mean = Array.from(
    { length: D },
    (_, j) => rows.reduce((sum, x, at) => sum + (at % D === j ? x / n : 0), 0),
  );
  const squares = (f: (at: number) => number) =>
    rows.reduce((sum, _, at) => sum + f(at) ** 2, 0);
  const error = squares((at) => rows[at]! - reconstruction[at]!);
  const variance = squares((at) => rows[at]! - mean[at % D]!);
  const featureMax = new Float64Array(file.d_sae);
  const fired = new Float64Array(file.d_sae);
  for (const [at, act] of acts.entries()) {
    const i = at % file.d_sae;
    featureMax[i] = Math.max(featureMax[i]!, act);
    if (act > 0) fired[i]!++;
  }
  // f32 products of raw vectors of norm about 15; the error is their small difference.
  assertClose([got.fvu], [error / variance], { rtol: 1e-4, label: "FVU" });
  assertClose([got.mse], [error / n], { rtol: 1e-4, label: "mse" });
  assertClose(got.featureMax, featureMax, { atol: 1e-4, label: "featureMax" });
  // An act within rounding of 0 may count on one side only.
  assertClose(got.density, fired.map((f) => f / n), {
    atol: 1.01 / n,
    label: "density",
  });
  const L0 = fired.reduce((sum, f) => sum + f / n, 0);
  assertClose([got.L0], [L0], { atol: 5 / n, label: "L0" });
}

Deno.test("evaluateResiduals() gives the same numbers when features span windows", async () => {
  const data = sparseData(300, 100);
  const random = (n: number, scale: number): Float32Array<ArrayBuffer> => {
    const rng = new Rng(n);
    return Float32Array.from({ length: n }, () => scale * rng.normal());
  };
  const d_sae = 200;
  const [W_enc, W_dec] = [random(d_sae * D, 0.1), random(d_sae * D + 1, 0.1)];
  const rows = (W: Float32Array) => (start: number, end: number) =>
    Promise.resolve(W.slice(start * D, end * D));
  const weights = {
    d_model: D,
    d_sae,
    rowsOfEncoder: rows(W_enc),
    rowsOfDecoder: rows(W_dec),
    b_enc: () => Promise.resolve(random(d_sae, 1)),
    b_dec: () => Promise.resolve(random(D, 1)),
  };
  async function* all() {
    for (const group of data.sizes.keys()) yield await data.read(group);
  }
  const evaluate = async (gpu: Gpu) => {
    using sae = await Sae.load(gpu, weights);
    return await evaluateResiduals(gpu, sae, all());
  };
  const whole = await testGpu();
  // 1024 activations of 64 features fit, of 128 not.
  using narrow = await testGpu({ maxBindingBytes: 300_000 });
  const [a, b] = [await evaluate(whole), await evaluate(narrow)];
  assertClose([b.fvu, b.mse], [a.fvu, a.mse], { rtol: 1e-5, label: "FVU" });
  deepEqual([b.L0, b.deadShare], [a.L0, a.deadShare]);
  deepEqual(b.featureMax, a.featureMax);
  deepEqual(b.density, a.density);
});

Deno.test("evaluateResiduals() refuses no vectors, broken runs and what is not finite", async () => {
  const gpu = await testGpu();
  const zeros = (n: number) => Promise.resolve(new Float32Array(n));
  const evaluate = async (
    lengths: number[],
    { w_enc = 0, b_dec = 0 }: { w_enc?: number; b_dec?: number } = {},
  ) => {
    using sae = await Sae.load(gpu, {
      d_model: D,
      d_sae: 8,
      rowsOfEncoder: async (start, end) =>
        (await zeros((end - start) * D)).fill(w_enc),
      rowsOfDecoder: (start, end) => zeros((end - start) * D),
      b_enc: () => zeros(8),
      b_dec: async () => (await zeros(D)).fill(b_dec),
    });
    const runs = ReadableStream.from(lengths.map((n) => new Uint16Array(n)));
    await evaluateResiduals(gpu, sae, runs);
  };
  await rejects(evaluate([]), /expected vectors: got none/);
  await rejects(evaluate([17]), /got a run of 17 values/);
  await rejects(evaluate([D], { b_dec: NaN }), /expected finite reconstruct/);
  // relu must not turn NaN into 0.
  await rejects(evaluate([D], { w_enc: NaN }), /expected finite reconstruct/);
});

Deno.test("trainSae() names the first step that is not finite, and writes no SAE", async () => {
  const gpu = await testGpu();
  const recipe = { ...RECIPE, lr: 1e30 };
  const written: string[] = [];
  await rejects(
    run(gpu, sparseData(1000, 64), recipe, {
      metricsEvery: 7,
      write: (file) => {
        written.push(file);
        return Promise.resolve();
      },
    }),
    /Cannot go on training: expected finite numbers: got \S+ for the loss of step 1 /,
  );
  deepEqual(written, []);
});

Deno.test("densityHistogram() counts features by decade and leaves dead ones out", () => {
  const bins = densityHistogram([0, 1, 0.5, 0.001, 0.00101, 0.002], 1000);
  equal(bins.length, 12);
  equal(bins[0]!.from, -3);
  equal(bins.at(-1)!.to, 0);
  deepEqual(bins.map((bin) => bin.nFeatures), [
    2,
    1,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    1,
    1,
  ]);
});
