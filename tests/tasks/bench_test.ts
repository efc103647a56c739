import { deepEqual, equal, match, ok, throws } from "node:assert/strict";
import { join } from "node:path";
import { reportOf, textOf } from "../../tasks/bench_report.ts";
import { median, timeInTurns, timingOf } from "../../tasks/bench_timing.ts";
import { checkFits, randomCheckpoint } from "../../tasks/bench_random.ts";
import { OLMO2_SIZES } from "../../tasks/olmo2_sizes.ts";
import { testGpu } from "../gpu_for_tests.ts";
import { runTask } from "./run_task.ts";

/** A model so small that little takes time. */
const MODEL = join(import.meta.dirname!, "../fixtures/olmo2-mha-f32");

Deno.test("bench prints ceilings, rates of every stage, and what steering costs", async () => {
  const run = await runTask(
    ["bench", "--model", MODEL, "--tiny", "--size", "all", "--json"],
  );
  equal(run.code, 0, run.stderr);
  const { gpu, timing, ceilings, rates, steering } = JSON.parse(run.stdout);
  ok(gpu.length > 0);
  match(timing, /^(GPU timestamps|wall clock)$/);
  equal(Object.keys(ceilings).length, 5);
  for (const [name, value] of Object.entries<number>(ceilings)) {
    ok(Number.isFinite(value) && value > 0, `${name}: ${value}`);
  }
  for (const { what, ms, rate, unit, gbPerS, percentOfRead } of rates) {
    // What is left beside kernels may be less than noise.
    if (unit === "%") continue;
    ok(Number.isFinite(ms), `${what}: ${ms} ms`);
    ok(Number.isFinite(rate), `${what}: ${rate}`);
    equal(gbPerS === undefined, percentOfRead === undefined, what);
  }
  equal(steering.nFeatures, 10);
  ok(Number.isFinite(steering.percent), `${steering.percent}`);
  const sections = rates.map(({ section }: { section: string }) => section);
  deepEqual([...new Set(sections)].map((section) => `${section}`), [
    "products",
    `model, ${MODEL}`,
    "training",
    "1B, products of decoding",
    "1B, random",
    "7B, products of decoding",
    "7B, one block",
  ]);
  const stages = rates.map(({ what }: { what: string }) => what).join("; ");
  match(stages, /SAE encode .*; prefill, 1 × .*decode, 1 row; .*SAE step/);
  match(stages, /x\[8, 64\].*; block, 8 rows; head, 1 row/);
});

Deno.test("bench --quantize measures quantized models, and what it changes", async () => {
  const run = await runTask([
    "bench",
    ...["--tiny", "--size", "7B-layer", "--json"],
    ...["--quantize", "q4"],
  ]);
  equal(run.code, 0, run.stderr);
  const { rates, errors } = JSON.parse(run.stdout);
  const products = rates.map(({ what }: { what: string }) => what).join("; ");
  match(products, /W\[\d+, 64\], q4, x\[8, 64\]/);
  equal(errors.length, 6);
  for (const { what, type, relative } of errors) {
    const [least, most] = type === "q8" ? [0.003, 0.02] : [0.06, 0.3];
    ok(relative > least && relative < most, `${what} ${type}: ${relative}`);
  }
});

Deno.test("checkFits() refuses a model when there is too little memory for it", () => {
  checkFits("a model", 3e9, 4e9);
  checkFits("a model", 3e9, undefined);
  throws(() => checkFits("a model", 3e9, 2e9), {
    name: "RangeError",
    message:
      "Cannot run a model: expected 3.00 GB of memory: got 2.00 GB: leave --size out, or free some",
  });
});

Deno.test("reportOf() sets rates beside the ceilings, and textOf() prints them", () => {
  const report = reportOf({
    gpu: "card",
    timing: "GPU timestamps",
    ceilings: {
      readGbPerS: 10,
      copyGbPerS: 5,
      bufferCopyGbPerS: 5,
      gflopPerS: 100,
      readbackMs: 11,
    },
    errors: [],
    rates: [
      {
        section: "decode",
        what: "one row",
        ms: 2,
        rate: 500,
        unit: "tokens/s",
        gbPerS: 8,
        gflopPerS: 4,
      },
      { section: "training", what: "step", ms: 100, rate: 10, unit: "steps/s" },
    ],
    steering: {
      nFeatures: 10,
      plainMs: 50,
      steeredMs: 50.2,
      percent: 0.4,
      kernelPercent: 0.31,
    },
  });
  const [decode, training] = report.rates;
  equal(decode!.percentOfRead, 80);
  equal(decode!.percentOfCompute, 4);
  equal(training!.percentOfRead, undefined);
  const text = textOf(report);
  match(text, /one row +2\.00 +500 +tokens\/s +8\.00 +80 +4\.0 +4/);
  match(
    text,
    /steering 10 features .* 0\.40 % more time \(50\.00 ms, steered 50\.20 ms\); its kernel takes 0\.31 %/,
  );
});

Deno.test("randomCheckpoint() gives finite numbers that are the same each time, and as many as the config asks for", async () => {
  const checkpoint = randomCheckpoint(OLMO2_SIZES["1B"]);
  const name = "model.layers.15.mlp.down_proj.weight";
  const { shape, start, end } = checkpoint.info(name);
  deepEqual(shape, [2048, 8192]);
  equal(end - start, 2 * 2048 * 8192);
  const rows = await checkpoint.bytes(name, 7, 9);
  equal(rows.length, 2 * 2 * 8192);
  deepEqual(await checkpoint.bytes(name, 8, 9), rows.subarray(2 * 8192));
  const floats = await checkpoint.floats("model.norm.weight");
  equal(floats.length, 2048);
  for (const value of floats) ok(Math.abs(value) < 0.12, `${value}`);
  const square = floats.reduce((sum, value) => sum + value ** 2, 0) / 2048;
  ok(Math.abs(Math.sqrt(square) / 0.02 - 1) < 0.1, `${Math.sqrt(square)}`);
  ok(floats.some((value) => value < 0) && floats.some((value) => value > 0));
});

Deno.test("timeInTurns() times what is recorded, as often as it is told", async () => {
  const gpu = await testGpu();
  using x = gpu.tensor("x", "f32", [4]);
  using y = gpu.tensor("y", "f32", [4]);
  let runs = 0;
  const times = await timeInTurns(gpu, [(rec) => {
    runs++;
    rec.copy(x, y);
  }], 3);
  equal(times[0]!.length, 3);
  ok(runs >= 4, `${runs} runs`);
  match(timingOf(gpu), /timestamps|clock/);
  equal(median([3, 1, 2]), 2);
});
