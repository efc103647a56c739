import { deepEqual, equal, ok, rejects } from "node:assert/strict";
import { bf16ToF32 } from "../../core/dtype.ts";
import { Rng } from "../../core/rng.ts";
import { Sae } from "../../core/sae.ts";
import { SaeFile } from "../../core/sae_file.ts";
import { memoryFolder, memorySource } from "../../core/source.ts";
import type { Gpu } from "../../gpu/mod.ts";
import { Batches } from "../../train/batches.ts";
import { densityHistogram, evaluateResiduals } from "../../train/evaluate.ts";
import type { SaeRecipe } from "../../train/recipe.ts";
import { scheduleAt } from "../../train/schedule.ts";
import { assertClose } from "../assert_close.ts";
import { testGpu } from "../gpu_for_tests.ts";
import { forward } from "../reference/sae_reference.ts";
import { D, smallRecipe, smallRun, sparseData, untimed } from "./small_run.ts";

Deno.test("trainSae() tells each measured step: values, times and the share of variance left", async () => {
  const gpu = await testGpu();
  const data = sparseData(1000, 64);
  const recipe = smallRecipe({ accumulate: 2, lrWarmup: 0.1 });
  const { lines } = await smallRun(gpu, data, recipe, { metricsEvery: 3 });
  deepEqual(lines.map(({ step }) => step), [0, 3, 6, 9, 12, 15, 18, 19]);
  const { variance, inputScale } =
    (await Batches.open(data, recipe)).statistics;
  for (const line of lines) {
    const { step, tokens, loss, mseSumPerToken, l1, L0, fvu, lambda } = line;
    equal(tokens, (step + 1) * 64);
    assertClose([loss], [mseSumPerToken + lambda * l1], {
      rtol: 1e-5,
      label: "loss",
    });
    assertClose([fvu], [mseSumPerToken / (variance * inputScale ** 2)], {
      rtol: 1e-12,
      label: "FVU",
    });
    ok(L0 > 0 && L0 <= recipe.d_sae, `L0 ${L0}`);
    deepEqual({ lambda, lr: line.lr }, scheduleAt(step, recipe));
    const { ms, tokensPerSecond } = line;
    ok(ms.step > 0 && ms.load >= 0 && ms.host >= 0 && ms.wait >= 0);
    assertClose([tokensPerSecond], [1000 * 64 / ms.step], {
      rtol: 1e-9,
      label: "tokens a second",
    });
    ok(!("auxLoss" in line) && !("resampled" in line));
  }
  equal(lines[0]!.lambda, 0);
});

Deno.test("trainSae() learns sparse data, and the saved SAE takes and gives raw vectors", async () => {
  const gpu = await testGpu();
  const data = sparseData(4000, 512);
  const recipe = smallRecipe({ steps: 600, batch: 64, holdOut: 500, lr: 1e-2 });
  const { files, lines, result } = await smallRun(gpu, data, recipe, {
    metricsEvery: 100,
  });
  equal(lines.at(-1)!.step, 599);
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

Deno.test("trainSae() trains and resumes 67 features to the bit, topk with AuxK and 8-bit moments and others", async () => {
  const gpu = await testGpu();
  const data = sparseData(1000, 64);
  const cases: Partial<SaeRecipe>[] = [
    {
      architecture: "topk",
      auxK: 5,
      moments: "q8",
      deadAfter: 300,
      resampleEvery: 11,
      resampleUntil: 0.9,
      lambda: 0,
    },
    {
      targetL0: 3,
      lambdaWarmup: 0.1,
      lambda: 2,
      resampleEvery: 8,
      moments: "q8",
    },
    { architecture: "batchtopk", batch: 29 },
    { architecture: "jumprelu", batch: 29, accumulate: 3 },
  ];
  for (const fields of cases) {
    const recipe = smallRecipe({ steps: 30, d_sae: 67, ...fields });
    const straight = await smallRun(gpu, data, recipe, { checkpointEvery: 13 });
    const sae = await SaeFile.open(memoryFolder("sae", straight.files));
    equal(sae.d_sae, 67);
    equal(straight.checkpoints.length, 2);
    for (const [n, bytes] of straight.checkpoints.entries()) {
      const resumed = await smallRun(gpu, data, recipe, {
        checkpoint: memorySource("checkpoint", bytes),
      });
      deepEqual(
        untimed(resumed.lines),
        untimed(straight.lines).slice(13 * (n + 1)),
      );
      const file = "sae_weights.safetensors";
      deepEqual(resumed.files[file], straight.files[file]);
    }
    if (recipe.moments === "q8") {
      const exact = await smallRun(gpu, data, { ...recipe, moments: "f32" });
      assertClose(
        straight.lines.map(({ fvu }) => fvu),
        exact.lines.map(({ fvu }) => fvu),
        { rtol: 0.03, label: `FVU with 8-bit moments, ${recipe.architecture}` },
      );
    }
    const hasAux = straight.lines.every(({ auxLoss }) => auxLoss !== undefined);
    equal(hasAux, recipe.auxK > 0);
    if (recipe.architecture === "topk") {
      ok(straight.lines.some(({ resampled = 0 }) => resampled > 0));
      ok(straight.lines.at(-1)!.auxLoss! > 0);
    }
  }
});

Deno.test("trainSae() names the first step that is not finite, and writes no SAE", async () => {
  const gpu = await testGpu();
  const recipe = smallRecipe({ lr: 1e30 });
  const written: string[] = [];
  await rejects(
    smallRun(gpu, sparseData(1000, 64), recipe, {
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
