/**
 * `bench`: how fast the products, the forward pass, decoding and training run on this GPU.
 * @module
 */
// deno-lint-ignore-file no-console
import { KvCache } from "../core/kv_cache.ts";
import { Olmo2, Workspace } from "../core/olmo2.ts";
import { Rng } from "../core/rng.ts";
import { wholeSequences } from "../core/token_batch.ts";
import {
  type Dtype,
  elementCount,
  type Gpu,
  type Recorder,
} from "../gpu/mod.ts";
import { matmul, type MatmulLayout } from "../kernels/matmul.ts";
import { generate } from "../steer/generate.ts";
import { initSae } from "../train/init.ts";
import { SaeTrainer } from "../train/trainer.ts";
import { GPU_FLAGS, MODEL_FLAG, runTask, SEED_FLAG } from "./cli.ts";
import { formatRate, formatTable } from "./format.ts";
import { openModelForIds } from "./steering.ts";

/** One measured rate. */
interface Rate {
  readonly what: string;
  readonly ms: number;
  readonly rate: number;
  readonly unit: string;
}

/** Products of the embedded model and its SAE, and of OLMo-2 7B with a batch of 1024. */
const PRODUCTS: readonly [
  string,
  MatmulLayout,
  Dtype,
  number,
  number,
  number,
][] = [
  ["x·W_gate_upᵀ, bf16", "mk,nk", "bf16", 2048, 1024, 192],
  ["SAE encode", "mk,nk", "f32", 1024, 1536, 192],
  ["SAE decode", "mk,kn", "f32", 1024, 192, 1536],
  ["SAE dW", "km,kn", "f32", 1536, 192, 1024],
];
const LARGE_PRODUCTS: typeof PRODUCTS = [
  ["7B x·W_gate_upᵀ, bf16", "mk,nk", "bf16", 1024, 22016, 4096],
  ["7B one token, bf16", "mk,nk", "bf16", 1, 22016, 4096],
  ["65k SAE encode, one window", "mk,nk", "f32", 1024, 8192, 4096],
  ["65k SAE dW, one window", "km,kn", "f32", 8192, 4096, 1024],
];

/** Least time of several runs after a warm-up, each waited for; in milliseconds. */
async function leastTime(
  gpu: Gpu,
  nRuns: number,
  perRun: number,
  record: (rec: Recorder) => void,
): Promise<number> {
  const run = async () => {
    const start = performance.now();
    for (let i = 0; i < perRun; i++) gpu.record("bench", record);
    await gpu.device.queue.onSubmittedWorkDone();
    return (performance.now() - start) / perRun;
  };
  await run();
  let least = Infinity;
  for (let i = 0; i < nRuns; i++) least = Math.min(least, await run());
  await gpu.settled();
  return least;
}

async function benchProducts(
  gpu: Gpu,
  products: typeof PRODUCTS,
): Promise<Rate[]> {
  const rates: Rate[] = [];
  for (const [what, layout, dtype, M, N, K] of products) {
    using A = gpu.tensor("A", "f32", layout === "km,kn" ? [K, M] : [M, K]);
    using B = gpu.tensor("B", dtype, layout === "mk,nk" ? [N, K] : [K, N]);
    using C = gpu.tensor("C", "f32", [M, N]);
    const ms = await leastTime(
      gpu,
      5,
      4,
      (rec) => matmul(rec, { layout, A, B, C }),
    );
    rates.push({
      what: `${what} ${M}×${N}×${K}`,
      ms,
      rate: 2 * M * N * K / ms / 1e6,
      unit: "GFLOP/s",
    });
  }
  return rates;
}

async function benchModel(gpu: Gpu, model: Olmo2, rng: Rng): Promise<Rate[]> {
  const { config } = model;
  const ids = (n: number) =>
    Array.from({ length: n }, () => rng.below(config.vocab_size));
  const length = Math.min(128, config.context_length);
  const sequences = Array.from({ length: 16 }, () => ids(length));
  const batch = wholeSequences(config, sequences);
  const T = batch.ids.length;
  using work = new Workspace(gpu, config, T);
  using cache = new KvCache(gpu, config, {
    nRows: sequences.length,
    nLayers: model.nLayers,
    isShared: true,
  });
  work.load(batch);
  cache.fit(sequences.map((ids) => ids.length));
  const ms = await leastTime(gpu, 3, 1, (rec) => {
    model.forward(rec, work, cache);
  });
  const rates: Rate[] = [{
    what: `forward, ${T} tokens`,
    ms,
    rate: 1000 * T / ms,
    unit: "tokens/s",
  }];
  const nPrompt = Math.max(1, Math.min(16, length >> 1));
  const maxNewTokens = Math.min(64, config.context_length - nPrompt);
  for (const rows of [1, 32]) {
    const prompts = Array.from({ length: rows }, () => ids(nPrompt));
    const requests = prompts.map((prompt, i) => ({
      prompt,
      sampling: { temperature: 1, topK: 0, topP: 0.9, seed: i },
    }));
    const run = () => generate(model, requests, { maxNewTokens, stopIds: [] });
    await run();
    const start = performance.now();
    await run();
    const took = performance.now() - start;
    rates.push({
      what: `generate, ${rows} ${
        rows === 1 ? "reply" : "replies"
      } of ${maxNewTokens}`,
      ms: took,
      rate: 1000 * rows * maxNewTokens / took,
      unit: "tokens/s",
    });
  }
  return rates;
}

async function benchTraining(gpu: Gpu, rng: Rng): Promise<Rate[]> {
  const [batch, d_model, d_sae] = [1024, 192, 1536];
  const config = {
    batch,
    d_model,
    d_sae,
    inputScale: 1,
    clipNorm: 1,
    betas: [0.9, 0.999] as const,
    eps: 1e-8,
  };
  const params = initSae(new Float64Array(d_model), d_sae, rng.below(2 ** 31));
  using trainer = new SaeTrainer(gpu, config, params);
  const rows = Float32Array.from(
    { length: elementCount([batch, d_model]) },
    () => rng.normal(),
  );
  const steps = 10;
  const run = async () => {
    const start = performance.now();
    for (let i = 0; i < steps; i++) trainer.step(rows, { lambda: 1, lr: 1e-4 });
    await trainer.assertFinite();
    return (performance.now() - start) / steps;
  };
  await run();
  const ms = Math.min(await run(), await run());
  return [{
    what: `SAE step, ${batch}×${d_model}×${d_sae}`,
    ms,
    rate: 1000 / ms,
    unit: "steps/s",
  }];
}

if (import.meta.main) {
  await runTask({
    name: "bench",
    description:
      "how fast products, forward pass, decoding and training run on this GPU",
    flags: {
      large: {
        default: false,
        help:
          "also products of OLMo-2 7B and a 65k SAE; too long for software drivers",
      },
      json: { default: false, help: "print JSON" },
      ...MODEL_FLAG,
      ...SEED_FLAG,
      ...GPU_FLAGS,
    },
  }, async (config, context) => {
    const folder = await openModelForIds(config.model);
    const gpu = await context.openGpu(config.gpu);
    const rng = new Rng(config.seed);
    using model = await Olmo2.load(gpu, folder.checkpoint, folder.config);
    const rates = [
      ...await benchProducts(
        gpu,
        config.large ? [...PRODUCTS, ...LARGE_PRODUCTS] : PRODUCTS,
      ),
      ...await benchModel(gpu, model, rng),
      ...await benchTraining(gpu, rng),
    ];
    if (config.json) {
      return console.log(JSON.stringify({ gpu: gpu.name, rates }, null, 2));
    }
    const rows = rates.map((
      { what, ms, rate, unit },
    ) => [what, ms.toFixed(2), formatRate(rate), unit]);
    console.log(formatTable(["what", "ms", "rate", "unit"], rows));
  });
}
