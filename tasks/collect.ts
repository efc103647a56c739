/**
 * Collects a model's residual stream into parquet shards:
 * `./ocs collect --text storybook:101:3000 --out out/residuals`.
 * @module
 */
// deno-lint-ignore-file no-console
import { fingerprint } from "../core/files.ts";
import {
  defaultHookPoint,
  hookPlace,
  type HookPoint,
  parseHookPoint,
} from "../core/hook_point.ts";
import { commitOfFolder, nameOfFolder } from "../core/hub_cache.ts";
import { dataFingerprint, type ModelFolder } from "../core/model_folder.ts";
import type { ResidualManifest } from "../core/residual_manifest.ts";
import type { ConfigOf, FlagTable } from "../core/flags.ts";
import type { TextShard } from "../core/text.ts";
import {
  type CollectConfig,
  type CollectProgress,
  collectResiduals,
} from "../train/collect.ts";
import {
  claimResiduals,
  collectedText,
  findBefore,
} from "../train/residual_output.ts";
import { ResidualReader } from "../train/residual_reader.ts";
import {
  GPU_FLAGS,
  MODEL_FLAG,
  openModel,
  type PlanRow,
  QUANTIZE_FLAG,
  runTask,
  type TaskContext,
  type TaskSpec,
} from "./cli.ts";
import { isShared, SHARED_FLAGS } from "./engine_flags.ts";
import { variable } from "./environment.ts";
import { formatBytes, formatCount, formatRate } from "./format.ts";
import { printJobs } from "./kubernetes.ts";
import { modelBytes, passBytes } from "./memory.ts";
import { SHARD_FLAG, shardOf } from "./shard.ts";
import { type SharedWork, shareWork } from "./shared_work.ts";
import { openStore } from "./storage.ts";
import { flagWords } from "./task_process.ts";
import { checkText } from "./text_check.ts";
import { TEXT_HELP } from "./text_open.ts";
import {
  type OpenedText,
  openText,
  SKIP_TOKENS_FLAG,
  TEXT_FLAGS,
} from "./text_source.ts";

const FLAGS = {
  ...MODEL_FLAG,
  ...QUANTIZE_FLAG,
  text: { default: "storybook:101:3000", help: `what to read: ${TEXT_HELP}` },
  ...TEXT_FLAGS,
  ...SKIP_TOKENS_FLAG,
  hook: {
    type: "string",
    help:
      "where: resid_post[l], or final_norm@l for the final norm applied there; without it the middle, resid_post[layers/2 - 1]",
  },
  out: {
    type: "string",
    required: true,
    help: "folder to write, also s3://BUCKET/FOLDER",
  },
  ...SHARD_FLAG,
  ...SHARED_FLAGS,
  documents: {
    type: "number",
    integer: true,
    min: 1,
    help: "most documents of the text; all without it",
  },
  tokens: {
    type: "number",
    integer: true,
    min: 1,
    help: "most vectors, one a token, of all shares together; all without it",
  },
  layout: {
    default: "binary",
    choices: ["binary", "list"],
    help:
      "rows as bytes, or as open-concept-steering's lists of uint16, which Hugging Face datasets opens",
  },
  shard_rows: {
    default: 32_768,
    integer: true,
    min: 1,
    unit: "vectors",
    help: "a file is closed after as many; a run that goes on begins there",
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

type Flags = ConfigOf<typeof FLAGS>;

interface CollectPlan {
  readonly hookPoint: HookPoint;
  readonly config: CollectConfig;
  readonly shard: TextShard | undefined;
}

/** Collects what the flags say. */
export async function collectTask(
  flags: Flags,
  context: TaskContext,
): Promise<number> {
  const isForOthers = isShared(flags);
  if (flags.engine === "kubernetes") {
    return printJobs(workOf(flags, flags.text), flags);
  }
  const shard = isForOthers ? undefined : shardOf(flags.shard, variable);
  const model = await openModel(flags.model, flags.quantize);
  const { documents = Infinity, tokens = Infinity } = flags;
  // Each document has a vector at least, but for those that are left out whole.
  const nDocuments = Math.min(documents, tokens);
  const store = await openStore(flags.out, context.note);
  const opened = await openText(flags.text, flags, model, {
    task: "collect",
    shard,
    mayBeEndless: nDocuments < Infinity,
    signal: context.signal,
    before: await collectedText(store),
  });
  const plan = planOf(flags, model, opened, shard);
  const { hookPoint, config } = plan;
  // Before anything is written: a text that cannot be read, a GPU that is not there.
  await checkText(opened.corpus, nDocuments, context);
  const run = { shard, fingerprint: await runId(flags, opened, plan, model) };
  if (isForOthers) {
    const isDone = async (shard: TextShard): Promise<boolean> =>
      (await findBefore(store, { ...run, shard }))?.done ?? false;
    const work = { ...workOf(flags, opened.text), isDone };
    return await shareWork(work, flags, context);
  }
  const gpu = await context.openGpu(flags.gpu);
  const maxTokens = Math.max(config.tokensPerPass, config.contextLength);
  context.plan(memoryPlan(model, plan, maxTokens));
  using reader = await ResidualReader.load(gpu, model, {
    hookPoint,
    maxTokens,
  });
  await using claim = await claimResiduals(store, run);
  const { before } = claim;
  if (before?.done) {
    context.note("complete already");
    report(before, store.name);
    return 0;
  }
  using bar = collectBar(context, plan, before);
  const collected = await collectResiduals({
    ...{ reader, config, store, before },
    ...run,
    read: opened.corpus.read,
    onProgress: (progress) => bar.update(progress),
    signal: context.signal,
  });
  bar.end();
  report(collected, store.name);
  return 0;
}

/** The flags as work that others share. All of them read the same text: of a dataset, the same commit. */
function workOf(flags: Flags, text: string): Omit<SharedWork, "isDone"> {
  const { out, gpu } = flags;
  const without = [...Object.keys(SHARED_FLAGS), "shard", "gpu"];
  const words = flagWords(FLAGS, { ...flags, text }, without);
  return { name: "collect", out, gpu, words, merge: ["data", "merge", out] };
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
 * @throws {RangeError} If the model has no such layer.
 */
function planOf(
  flags: Flags,
  { name, config: { n_layers } }: ModelFolder,
  { text, contexts }: OpenedText,
  shard: TextShard | undefined,
): CollectPlan {
  const { documents, tokens } = flags;
  return {
    hookPoint: flags.hook === undefined
      ? defaultHookPoint(n_layers)
      : parseHookPoint(flags.hook, n_layers),
    shard,
    config: {
      ...contexts,
      modelName: nameOfFolder(name),
      revision: commitOfFolder(name),
      text,
      shuffle: flags.shuffle,
      layout: flags.layout,
      shardRows: flags.shard_rows,
      tokensPerPass: flags.pass_tokens,
      ...(documents !== undefined && { maxDocuments: documents }),
      ...(tokens !== undefined && { maxVectors: shareOf(tokens, shard) }),
    },
  };
}

/** How many of n vectors a share of the work has; those of all shares make n. */
function shareOf(
  n: number,
  { index, count }: TextShard = { index: 0, count: 1 },
): number {
  return Math.floor((index + 1) * n / count) - Math.floor(index * n / count);
}

/** What decides the bytes of a collection; the same for all shares of it. */
async function runId(
  { documents, tokens }: Flags,
  opened: OpenedText,
  { hookPoint, config }: CollectPlan,
  model: ModelFolder,
): Promise<string> {
  const { layout, shardRows, tokensPerPass } = config;
  return await fingerprint({
    ...opened.id,
    ...{ documents, tokens, hookPoint, layout, shardRows, tokensPerPass },
    model: dataFingerprint(model),
  });
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
    // One that is being filled, and the one before while it is written.
    {
      what: "two shards on the host",
      bytes: 4 * d_model * (config.shardRows + maxTokens),
    },
  ];
}

/** Progress in documents or vectors, whichever has a known end. */
function collectBar(
  { progress }: TaskContext,
  { config: { text, maxDocuments = Infinity, maxVectors }, shard }: CollectPlan,
  before: ResidualManifest | undefined,
): Disposable & { update(now: CollectProgress): void; end(): void } {
  const written = Number(/^storybook:\d+:(\d+)$/.exec(text)?.[1] ?? Infinity);
  const nDocuments = Math.ceil(
    Math.min(written, maxDocuments) / (shard?.count ?? 1),
  );
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
