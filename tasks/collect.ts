/**
 * Collects a model's residual stream into parquet shards:
 * `./ocs collect --text storybook:101:3000 --out out/residuals`.
 * @module
 */
// deno-lint-ignore-file no-console
import { join } from "node:path";
import { claimOutputFolder, fingerprint, writeAtomic } from "../core/files.ts";
import {
  defaultHookPoint,
  hookPlace,
  type HookPoint,
  parseHookPoint,
} from "../core/hook_point.ts";
import { nameOfFolder } from "../core/hub_cache.ts";
import { dataFingerprint, type ModelFolder } from "../core/model_folder.ts";
import {
  parseResidualManifest,
  type ResidualManifest,
} from "../core/residuals.ts";
import type { ConfigOf, FlagTable } from "../core/flags.ts";
import { openCorpus } from "../core/text.ts";
import {
  type CollectConfig,
  type CollectProgress,
  collectResiduals,
} from "../train/collect.ts";
import { ResidualReader } from "../train/residual_reader.ts";
import {
  GPU_FLAGS,
  MODEL_FLAG,
  openModel,
  openPath,
  type PlanRow,
  QUANTIZE_FLAG,
  runTask,
  type TaskContext,
  type TaskSpec,
  userPath,
} from "./cli.ts";
import { formatBytes, formatCount, formatRate } from "./format.ts";
import { modelBytes, passBytes } from "./memory.ts";
import { checkText } from "./text_check.ts";

const FLAGS = {
  ...MODEL_FLAG,
  ...QUANTIZE_FLAG,
  text: {
    default: "storybook:101:3000",
    help:
      "what to read: storybook:SEED:N, a .txt, .jsonl or .parquet file, or a folder of these",
  },
  text_column: { default: "text", help: "field or column of the text" },
  hook: {
    type: "string",
    help:
      "where: resid_post[l], or final_norm@l for the final norm applied there; without it the middle, resid_post[layers/2 - 1]",
  },
  out: { type: "string", required: true, help: "folder to write" },
  context: {
    type: "number",
    integer: true,
    min: 2,
    unit: "tokens",
    help: "documents are cut here; 256 or the model's context without it",
  },
  documents: {
    type: "number",
    integer: true,
    min: 1,
    help: "most documents; all without it",
  },
  tokens: {
    type: "number",
    integer: true,
    min: 1,
    help: "most vectors, one a token; all without it",
  },
  skip_first: {
    default: 1,
    integer: true,
    min: 0,
    unit: "tokens",
    help:
      "left out at the start of each document; the first is an outlier of many times the norm",
  },
  shard_rows: {
    default: 32_768,
    integer: true,
    min: 1,
    unit: "vectors",
    help: "a file is closed after as many",
  },
  pass_tokens: {
    default: 2048,
    integer: true,
    min: 1,
    unit: "tokens",
    help: "read at once",
  },
  ...GPU_FLAGS,
} as const satisfies FlagTable;

interface CollectPlan {
  readonly hookPoint: HookPoint;
  readonly config: CollectConfig;
}

/** Collects what the flags say. */
export async function collectTask(
  flags: ConfigOf<typeof FLAGS>,
  context: TaskContext,
): Promise<void> {
  const model = await openModel(flags.model, flags.quantize);
  const plan = planOf(flags, model);
  const corpus = await openCorpus(plan.config.text, openPath, {
    textColumn: flags.text_column,
  });
  // Before anything is written: a text that cannot be read, a GPU that is not there.
  await checkText(corpus, mostDocuments(plan.config), context);
  const gpu = await context.openGpu(flags.gpu);
  const { hookPoint, config } = plan;
  const maxTokens = Math.max(config.tokensPerPass, config.contextLength);
  context.plan(memoryPlan(model, plan, maxTokens));
  using reader = await ResidualReader.load(gpu, model, {
    hookPoint,
    maxTokens,
  });
  const out = userPath(flags.out);
  const id = await fingerprint({
    ...config,
    hookPoint,
    model: dataFingerprint(model),
    files: corpus.files.map(({ name, byteLength }) => [name, byteLength]),
    textColumn: flags.text_column,
  });
  const manifest = await claimOutputFolder(out, "residuals", id);
  const before = manifest && "shards" in manifest
    ? parseResidualManifest(manifest, join(out, "manifest.json"))
    : undefined;
  if (before?.done) {
    context.note("complete already");
    report(before, out);
    return;
  }
  using bar = collectBar(context, config, before);
  const collected = await collectResiduals({
    reader,
    config,
    read: corpus.read,
    manifest: before ?? { kind: "residuals", fingerprint: id },
    write: (file, content) => writeAtomic(join(out, file), content),
    onProgress: (progress) => bar.update(progress),
    signal: context.signal,
  });
  bar.end();
  report(collected, out);
}

/** Documents that may be read: each has a vector at least, but for those shorter than `skipFirst`. */
function mostDocuments(
  { maxDocuments = Infinity, maxVectors = Infinity }: CollectConfig,
): number {
  return Math.min(maxDocuments, maxVectors);
}

function report(manifest: ResidualManifest, out: string): void {
  const { shards, hookPoint, n_tokens, n_documents } = manifest;
  const size = formatBytes(shards.reduce((sum, { bytes }) => sum + bytes, 0));
  console.log(
    `${formatCount(n_tokens)} vectors of ${hookPoint} from ${
      formatCount(n_documents)
    } documents in ${shards.length} ${
      shards.length === 1 ? "shard" : "shards"
    } (${size}): ${out}`,
  );
}

/**
 * What the flags mean for this model.
 * @throws {RangeError} If the model has no such layer or context, or the text would not end.
 */
function planOf(
  flags: ConfigOf<typeof FLAGS>,
  { name, config }: ModelFolder,
): CollectPlan {
  const { context_length, n_layers } = config;
  const contextLength = flags.context ?? Math.min(256, context_length);
  if (contextLength > context_length) {
    throw new RangeError(
      `Cannot collect with --context ${contextLength}: the context of model "${name}" is ${context_length} tokens: shorten it`,
    );
  }
  const endless = /^storybook:\d+$/.test(flags.text);
  if (endless && flags.documents === undefined && flags.tokens === undefined) {
    throw new RangeError(
      `Cannot collect from "${flags.text}": it is endless: write ${flags.text}:3000, or give --documents or --tokens`,
    );
  }
  const isStorybook = flags.text.startsWith("storybook:");
  return {
    hookPoint: flags.hook === undefined
      ? defaultHookPoint(n_layers)
      : parseHookPoint(flags.hook, n_layers),
    config: {
      modelName: nameOfFolder(name),
      text: isStorybook ? flags.text : userPath(flags.text),
      contextLength,
      skipFirst: flags.skip_first,
      shardRows: flags.shard_rows,
      tokensPerPass: flags.pass_tokens,
      ...(flags.documents === undefined
        ? {}
        : { maxDocuments: flags.documents }),
      ...(flags.tokens === undefined ? {} : { maxVectors: flags.tokens }),
    },
  };
}

function memoryPlan(
  model: ModelFolder,
  { hookPoint, config }: CollectPlan,
  maxTokens: number,
): PlanRow[] {
  const { d_model } = model.config;
  const nLayers = hookPlace(hookPoint).layer + 1;
  return [
    {
      what: `${nLayers} blocks of the model`,
      bytes: modelBytes(model, { nLayers, withHead: false }),
    },
    {
      what: `a pass of ${formatCount(maxTokens)} tokens`,
      bytes: passBytes(model.config, maxTokens, 1) + 2 * maxTokens * d_model,
    },
    // A shard lies in memory while it is filled, and once more while it is written.
    {
      what: "a shard on the host",
      bytes: 4 * d_model * (config.shardRows + maxTokens),
    },
  ];
}

/** Progress in documents or vectors, whichever has a known end. */
function collectBar(
  { progress }: TaskContext,
  { text, maxDocuments = Infinity, maxVectors }: CollectConfig,
  before: ResidualManifest | undefined,
): Disposable & { update(now: CollectProgress): void; end(): void } {
  const written = Number(/^storybook:\d+:(\d+)$/.exec(text)?.[1] ?? Infinity);
  const nDocuments = Math.min(written, maxDocuments);
  const inDocuments = maxVectors === undefined && nDocuments < Infinity;
  const total = inDocuments ? nDocuments : maxVectors;
  const bar = progress({
    label: "collect",
    unit: inDocuments ? "documents" : "vectors",
    start: (inDocuments ? before?.n_documents : before?.n_tokens) ?? 0,
    ...(total === undefined ? {} : { total }),
  });
  const start = performance.now();
  return {
    update({ nDocuments, nVectors, nTokensRead }): void {
      const perSecond = 1000 * nTokensRead / (performance.now() - start);
      bar.update(
        inDocuments ? nDocuments : nVectors,
        `${formatRate(perSecond)} tokens/s`,
      );
    },
    end: () => bar.end(),
    [Symbol.dispose]: () => bar[Symbol.dispose](),
  };
}

/** The task, for the command line and for tasks that have it as a stage. */
export const COLLECT: TaskSpec<typeof FLAGS> = {
  name: "collect",
  description:
    "Collects the residual stream that a text makes in a model, as parquet shards.",
  afterInterrupt: "the same command goes on after the last complete shard",
  flags: FLAGS,
};

if (import.meta.main) await runTask(COLLECT, collectTask);
