/**
 * `bench`: how fast this GPU computes: the most it can, and products, prefill, decoding, steering and training beside that.
 * @module
 */
// deno-lint-ignore-file no-console
import type { ModelFolder } from "../core/model_folder.ts";
import { Olmo2 } from "../core/olmo2.ts";
import type { Olmo2Config } from "../core/olmo2_config.ts";
import { Rng } from "../core/rng.ts";
import { weightDtype } from "../core/weight_loader.ts";
import {
  bytesPerRow,
  type Dtype,
  type Gpu,
  type QuantizedDtype,
} from "../gpu/mod.ts";
import { type Ceilings, measureCeilings, READ_SIZE } from "./bench_ceilings.ts";
import { measureErrors, type QuantizationError } from "./bench_errors.ts";
import { benchBlock, benchDecode, benchPrefill } from "./bench_model.ts";
import {
  benchDecodeProducts,
  benchProducts,
  LARGE_PRODUCTS,
  PRODUCTS,
  weightShapes,
} from "./bench_products.ts";
import { checkFits, OLMO2_7B, randomCheckpoint } from "./bench_random.ts";
import { modelBytes } from "./memory.ts";
import { reportOf, textOf } from "./bench_report.ts";
import { benchSteering, type SteeringCost } from "./bench_steering.ts";
import { type Rate, timingOf } from "./bench_timing.ts";
import { benchTraining } from "./bench_training.ts";
import {
  GPU_FLAGS,
  MODEL_FLAG,
  QUANTIZE_FLAG,
  runTask,
  SEED_FLAG,
  type TaskContext,
} from "./cli.ts";
import { MEMORY_FLAG, memoryBudget } from "./memory_budget.ts";
import { OLMO2_SIZES } from "./olmo2_sizes.ts";
import { openModelForIds } from "./replying_model.ts";

/** What `--size` takes. */
const SIZES = ["embedded", "1B", "7B-layer", "all"] as const;

/** What a run measures with. */
interface Run {
  readonly gpu: Gpu;
  readonly rng: Rng;
  readonly isTiny: boolean;
  readonly context: TaskContext;
  /** Bytes that may be taken; undefined where nobody knows. */
  readonly budget: number | undefined;
  /** How models are rounded as they are loaded. */
  readonly quantize: QuantizedDtype | undefined;
}

/** Bytes of a weight, its share of a scale included. */
function bytesOfWeight(dtype: Dtype): number {
  return bytesPerRow(dtype, [1, 4096]) / 4096;
}

/** Sizes of a model for `--tiny`. */
const TINY = {
  d_model: 64,
  n_heads: 4,
  n_kv_heads: 4,
  d_head: 16,
  d_ffn: 96,
  vocab_size: 128,
  context_length: 128,
} as const;

/** Memory beside the weights: activations, logits, the cache, and copies for the moment. */
const WORK_BYTES = 5e8;

/** A model of random weights, after a look at the memory. */
async function randomModel(
  { gpu, context, budget, isTiny, quantize }: Run,
  what: string,
  config: Olmo2Config,
): Promise<Olmo2> {
  const checkpoint = randomCheckpoint(config);
  const weights = modelBytes({
    config,
    checkpoint,
    ...(quantize && { quantize }),
  });
  const bytes = weights + (isTiny ? 0 : WORK_BYTES);
  checkFits(what, bytes, budget);
  context.plan([{ what, bytes }]);
  context.signal.throwIfAborted();
  return await Olmo2.load(gpu, checkpoint, config, { quantize });
}

/** The model of the folder: prompts, replies, and what else is small. */
async function benchEmbedded(
  { gpu, rng, isTiny, context, quantize }: Run,
  folder: Pick<ModelFolder, "checkpoint" | "config" | "name">,
): Promise<Rate[]> {
  const { checkpoint, config } = folder;
  const products = await benchProducts(
    gpu,
    "products",
    isTiny
      ? PRODUCTS.map(([what, layout, bType]) =>
        [what, layout, bType, 64, 64, 64] as const
      )
      : PRODUCTS,
  );
  context.signal.throwIfAborted();
  using model = await Olmo2.load(gpu, checkpoint, config, { quantize });
  const weights = checkpoint.info("model.layers.0.mlp.up_proj.weight");
  const measured = {
    section: `model, ${folder.name}`,
    model,
    weightBytes: bytesOfWeight(weightDtype(weights, quantize)),
    rng,
  };
  const length = Math.min(512, config.context_length);
  const short = Math.min(32, length);
  const prompts = [[length], Array(isTiny ? 2 : 64).fill(short)];
  const prefill = await benchPrefill(measured, prompts);
  context.signal.throwIfAborted();
  const decode = isTiny
    ? await benchDecode(measured, [1, 2], 3)
    : await benchDecode(measured, [1, 2, 8, 32], 65);
  return [
    ...products,
    ...prefill,
    ...decode,
    ...await benchTraining(gpu, rng, isTiny),
  ];
}

/** OLMo-2 1B: products of decoding, prompts, replies. */
async function bench1B(run: Run): Promise<Rate[]> {
  const { gpu, rng, isTiny, context, quantize = "bf16" } = run;
  const config = isTiny
    ? { ...OLMO2_SIZES["1B"], ...TINY, n_layers: 2 }
    : OLMO2_SIZES["1B"];
  using model = await randomModel(run, "OLMo-2 1B, random", config);
  const products = await benchDecodeProducts(
    gpu,
    "1B, products of decoding",
    weightShapes(config),
    quantize,
  );
  const weightBytes = bytesOfWeight(quantize);
  const measured = { section: "1B, random", model, weightBytes, rng };
  const isSlow = gpu.isSoftware;
  const nPrompt = isTiny ? 8 : isSlow ? 128 : 2048;
  const prefill = await benchPrefill(measured, [[nPrompt]]);
  context.signal.throwIfAborted();
  const rows = isSlow ? [1, 2, 8] : [1, 2, 8, 32];
  return [
    ...products,
    ...prefill,
    ...await benchDecode(measured, rows, isTiny ? 3 : isSlow ? 9 : 65),
  ];
}

/** One block and the head of OLMo-2 7B, and products of its sizes. */
async function bench7B(run: Run): Promise<Rate[]> {
  const { gpu, rng, isTiny, quantize = "bf16" } = run;
  const sizes = isTiny ? { ...OLMO2_7B, ...TINY } : OLMO2_7B;
  const config = { ...sizes, n_layers: 1 };
  const shapes = weightShapes(config);
  using model = await randomModel(run, "a block of OLMo-2 7B, random", config);
  const products = await benchDecodeProducts(
    gpu,
    "7B, products of decoding",
    shapes,
    quantize,
  );
  const large = isTiny
    ? []
    : await benchProducts(gpu, "7B, other products", LARGE_PRODUCTS);
  const weightBytes = bytesOfWeight(quantize);
  const measured = { section: "7B, one block", model, weightBytes, rng };
  return [
    ...products,
    ...large,
    ...await benchBlock(measured, isTiny ? 8 : 512),
  ];
}

/** Steering at a block of OLMo-2 7B. */
async function benchSteered(run: Run): Promise<SteeringCost> {
  const sizes = run.isTiny ? { ...OLMO2_7B, ...TINY } : OLMO2_7B;
  const config = { ...sizes, n_layers: 1, vocab_size: 128 };
  using model = await randomModel(run, "a block of OLMo-2 7B, random", config);
  return await benchSteering({
    section: "steering",
    model,
    weightBytes: bytesOfWeight(run.quantize ?? "bf16"),
    rng: run.rng,
  });
}

/** What quantization changes at the sizes of OLMo-2 7B. */
async function benchErrors(
  { gpu, rng, isTiny }: Run,
): Promise<QuantizationError[]> {
  const sizes = isTiny ? { ...OLMO2_7B, ...TINY } : OLMO2_7B;
  const config = { ...sizes, n_layers: 1, vocab_size: 1024 };
  return await measureErrors(gpu, config, rng);
}

if (import.meta.main) {
  await runTask({
    name: "bench",
    description:
      "how fast products, prefill, decoding, steering and training are on this GPU, beside the most it can do",
    flags: {
      size: {
        default: "embedded",
        choices: SIZES,
        help:
          "which models to measure: that of --model; OLMo-2 1B, or a block and the head of 7B, with random weights; or all",
      },
      tiny: {
        default: false,
        help: "sizes that take no time: only to see whether everything runs",
      },
      json: { default: false, help: "print JSON" },
      ...MODEL_FLAG,
      ...QUANTIZE_FLAG,
      ...MEMORY_FLAG,
      ...SEED_FLAG,
      ...GPU_FLAGS,
    },
  }, async (config, context) => {
    const isWanted = (size: typeof SIZES[number]): boolean =>
      config.size === size || config.size === "all";
    const folder = await openModelForIds({ model: config.model });
    const gpu = await context.openGpu(config.gpu);
    const { gpu: card, host, isShared } = memoryBudget(gpu, config.memory);
    const run: Run = {
      gpu,
      rng: new Rng(config.seed),
      isTiny: config.tiny,
      context,
      budget: isShared ? host : card,
      quantize: config.quantize === "none" ? undefined : config.quantize,
    };
    context.note("ceilings of this adapter");
    const ceilings: Ceilings = await measureCeilings(
      gpu,
      config.tiny ? { rows: 64, columns: 64 } : READ_SIZE,
    );
    const rates: Rate[] = [];
    if (isWanted("embedded")) {
      context.note(`model ${folder.name}`);
      rates.push(...await benchEmbedded(run, folder));
    }
    if (isWanted("1B")) rates.push(...await bench1B(run));
    if (isWanted("7B-layer")) rates.push(...await bench7B(run));
    const steering = await benchSteered(run);
    const errors = run.quantize !== undefined && isWanted("7B-layer")
      ? await benchErrors(run)
      : [];
    const report = reportOf({
      gpu: gpu.name,
      timing: timingOf(gpu),
      ceilings,
      rates,
      steering,
      errors,
    });
    console.log(config.json ? JSON.stringify(report, null, 2) : textOf(report));
  });
}
