/**
 * What `train` trains on: residuals that were collected, or a model's own while it reads a text.
 * @module
 */
import type { ConfigOf, FlagTable } from "../core/flags.ts";
import {
  defaultHookPoint,
  hookPlace,
  type HookPoint,
  parseHookPoint,
} from "../core/hook_point.ts";
import { nameOfFolder } from "../core/hub_cache.ts";
import { dataFingerprint, type ModelFolder } from "../core/model_folder.ts";
import { ResidualFolder, type ToldFacts } from "../core/residuals.ts";
import type { ReadCorpus } from "../core/text.ts";
import type { Gpu } from "../gpu/mod.ts";
import type { BatchSource } from "../train/batch_source.ts";
import { contextPasses, type PassConfig } from "../train/context_passes.ts";
import { LiveRows } from "../train/live_rows.ts";
import { type FolderAddress, openFolderAt } from "../train/folder_address.ts";
import { PrefetchedBatches } from "../train/prefetched_batches.ts";
import type { SaeRecipe } from "../train/recipe.ts";
import { ResidualReader } from "../train/residual_reader.ts";
import { RowFilter } from "../train/row_filter.ts";
import { rowGroupsOf } from "../train/row_groups.ts";
import type { TrainOptions } from "../train/train.ts";
import { openModel, QUANTIZE_FLAG, type TaskContext } from "./cli.ts";
import { formatCount } from "./format.ts";
import { modelBytes, passBytes } from "./memory.ts";
import type { MemoryRow } from "./memory_plan.ts";
import { folderAddress } from "./storage.ts";
import { checkText } from "./text_check.ts";
import { TEXT_HELP } from "./text_open.ts";
import { openText, TEXT_FLAGS } from "./text_source.ts";

/** Where vectors come from: `--residuals`, or `--text` with `--model`. */
export const DATA_FLAGS = {
  residuals: {
    type: "string",
    help:
      "folder that collect wrote, also s3://BUCKET/FOLDER, or of parquet files with a column residual_stream",
  },
  model_name: {
    type: "string",
    help: "model of --residuals that do not tell theirs",
  },
  text: {
    type: "string",
    help:
      `train straight from the model on this text, without storing vectors: ${TEXT_HELP}`,
  },
  ...TEXT_FLAGS,
  model: {
    type: "string",
    help:
      "folder of the model that reads --text; models/tiny-olmo2 of this repo without it",
  },
  ...QUANTIZE_FLAG,
  hook: {
    type: "string",
    help:
      "where --text is read, or --residuals that do not tell it were: resid_post[l] or final_norm@l; without it the middle, resid_post[layers/2 - 1]",
  },
  pass_tokens: {
    default: 2048,
    integer: true,
    min: 1,
    unit: "tokens",
    help: "of --text that go through the model at once",
  },
} as const satisfies FlagTable;

type DataFlags = ConfigOf<typeof DATA_FLAGS>;

/** Data that was found, before anything large is taken for it. */
export interface TrainingInput {
  /** Size of a vector. */
  readonly d_model: number;
  /** The text as it opens again, of vectors that a model makes; with the commit where it is a dataset of the hub. */
  readonly text?: string;
  /** Vectors that lie on the host to draw from, at most. */
  readonly nOnHost: number;
  /** What decides the vectors, for the fingerprint of a run. */
  readonly id: Readonly<Record<string, unknown>>;
  /** What later stages must know of an SAE that is trained on it. */
  readonly metadata: TrainOptions["metadata"];
  /** What it takes besides the trainer. */
  memoryOf(recipe: SaeRecipe): readonly MemoryRow[];
  /** Begins to make batches. What it opens belongs to `owned`. */
  open(
    gpu: Gpu,
    recipe: SaeRecipe,
    owned: DisposableStack,
  ): Promise<OpenTrainingData>;
}

/** Data that batches are drawn from. */
export interface OpenTrainingData {
  /** The batches. */
  readonly batches: BatchSource;
  /** The first n vectors, or all: bits of bf16 `[n, d_model]`, some at a time. */
  firstRows(
    n: number,
    signal: AbortSignal,
  ): AsyncGenerator<Uint16Array<ArrayBuffer>>;
}

/**
 * Finds the data that the flags name.
 * @param before What an earlier run of the same folder called its text.
 * @throws {RangeError} If they name none, or both kinds.
 */
export async function findTrainingData(
  flags: DataFlags,
  context: TaskContext,
  before?: string,
): Promise<TrainingInput> {
  const { residuals, text } = flags;
  if ((residuals === undefined) === (text === undefined)) {
    throw new RangeError(
      `Cannot run train: expected --residuals DIR or --text TEXT: got ${
        residuals === undefined ? "neither" : "both"
      }`,
    );
  }
  return residuals === undefined
    ? await findText(flags, text!, context, before)
    : await findResiduals(folderAddress(residuals), flags, context);
}

async function findResiduals(
  address: FolderAddress,
  flags: DataFlags,
  context: TaskContext,
): Promise<TrainingInput> {
  const folder = await ResidualFolder.open(
    openFolderAt(address),
    toldFacts(flags),
  );
  const { model, contextLength, text, n_tokens, ...manifest } = folder.manifest;
  const { hookPoint, modelName } = whereFrom(folder);
  if (!manifest.done) {
    context.note(
      `"${folder.name}" is not complete; training on the ${
        formatCount(n_tokens)
      } vectors that are there`,
    );
  }
  return {
    d_model: model.d_model,
    nOnHost: n_tokens,
    id: {
      residuals: manifest.fingerprint,
      shards: manifest.shards.map(({ file, n_rows, bytes, sha256 }) =>
        sha256 ?? `${file}:${n_rows}:${bytes}`
      ),
    },
    metadata: {
      hookPoint,
      modelName,
      ...(model.fingerprint !== undefined &&
        { modelFingerprint: model.fingerprint }),
      ...(contextLength !== undefined && { contextLength }),
      ...(text !== undefined && { text }),
    },
    memoryOf: () => [],
    async open(_gpu, recipe, owned): Promise<OpenTrainingData> {
      // Read and decoded in a worker, ahead of the trainer.
      const batches = owned.use(await PrefetchedBatches.open(address, recipe));
      return {
        batches,
        firstRows: (n, signal) => storedRows(folder, recipe, n, signal),
      };
    },
  };
}

/** What the flags say of residuals that do not say it themselves. */
function toldFacts({ hook, model_name }: DataFlags): ToldFacts {
  return {
    ...(hook !== undefined && { hookPoint: parseHookPoint(hook) }),
    ...(model_name !== undefined && { modelName: model_name }),
  };
}

/**
 * What an SAE must say of the vectors that it is trained on.
 * @throws {RangeError} If neither the files nor the flags say it.
 */
function whereFrom(
  { name, manifest: { hookPoint, model } }: ResidualFolder,
): { hookPoint: HookPoint; modelName: string } {
  const refuse = (what: string, fix: string): RangeError =>
    new RangeError(
      `Cannot train on "${name}": expected ${what}, which its files do not tell: got none: give ${fix}`,
    );
  if (hookPoint === undefined) {
    throw refuse(
      "a hook point",
      "--hook, such as final_norm@15 for what open-concept-steering collected of OLMo-2 7B",
    );
  }
  if (model.name === undefined) throw refuse("a model", "--model-name");
  return { hookPoint, modelName: model.name };
}

/** Vectors of a folder, but for those that are not finite where such are skipped. */
async function* storedRows(
  folder: ResidualFolder,
  { skipBadRows }: SaeRecipe,
  n: number,
  signal: AbortSignal,
): AsyncGenerator<Uint16Array<ArrayBuffer>> {
  const groups = await rowGroupsOf(folder);
  const filter = new RowFilter({ skipBadRows });
  const { d_model } = groups;
  let left = n;
  for (const group of groups.sizes.keys()) {
    signal.throwIfAborted();
    const all = await groups.read(group, { keepBad: skipBadRows });
    const { rows } = filter.apply(all, d_model);
    yield rows.subarray(0, left * d_model);
    left -= rows.length / d_model;
    if (left <= 0) return;
  }
}

async function findText(
  flags: DataFlags,
  typed: string,
  context: TaskContext,
  before: string | undefined,
): Promise<TrainingInput> {
  const model = await openModel(flags.model, flags.quantize);
  const { n_layers, d_model } = model.config;
  const hookPoint = flags.hook === undefined
    ? defaultHookPoint(n_layers)
    : parseHookPoint(flags.hook, n_layers);
  const { text, corpus, contexts, id } = await openText(
    typed,
    {
      ...flags,
      skip_tokens: undefined, // the recipe's are others
    },
    model,
    { task: "train", mayBeEndless: true, signal: context.signal, before },
  );
  // An endless text can only be looked into.
  await checkText(corpus, Infinity, context);
  const passes = { ...contexts, tokensPerPass: flags.pass_tokens };
  const { contextLength } = contexts;
  const maxTokens = Math.max(passes.tokensPerPass, contextLength);
  const nLayers = hookPlace(hookPoint).layer + 1;
  return {
    d_model,
    text,
    nOnHost: 0,
    id: {
      model: dataFingerprint(model),
      hookPoint,
      ...id,
      tokensPerPass: flags.pass_tokens,
    },
    metadata: {
      hookPoint,
      modelName: nameOfFolder(model.name),
      modelFingerprint: dataFingerprint(model),
      contextLength,
      text,
    },
    memoryOf: (recipe) => [
      {
        what: `${nLayers} blocks of the model`,
        bytes: modelBytes(model, { nLayers, withHead: false }),
      },
      {
        what: `a pass of ${formatCount(maxTokens)} tokens`,
        bytes: passBytes(model.config, maxTokens, 1),
      },
      {
        what: `${formatCount(recipe.bufferRows)} vectors to draw from`,
        bytes: LiveRows.bytes(recipe, { maxTokens, d_model }),
      },
    ],
    async open(gpu, recipe, owned): Promise<OpenTrainingData> {
      const reader = owned.use(
        await ResidualReader.load(gpu, model, { hookPoint, maxTokens }),
      );
      const live = { gpu, reader, text, read: corpus.read, ...passes };
      const batches = owned.use(
        await LiveRows.open({ ...live, batches: recipe }),
      );
      return {
        batches,
        firstRows: (n, signal) => readRows(live, model, n, signal),
      };
    },
  };
}

/** Vectors of a text in its order, read back pass by pass. */
async function* readRows(
  live: PassConfig & {
    readonly reader: ResidualReader;
    readonly read: ReadCorpus;
  },
  model: ModelFolder,
  n: number,
  signal: AbortSignal,
): AsyncGenerator<Uint16Array<ArrayBuffer>> {
  const { d_model } = model.config;
  const { reader } = live;
  let left = n;
  for await (const contexts of contextPasses(live.read, model, live)) {
    signal.throwIfAborted();
    reader.submit(contexts.map(({ ids }) => ids));
    const rows = await reader.rows();
    const kept = contexts.flatMap(({ kept }) => [...kept]);
    // Those that are kept move to the front.
    let nKept = 0;
    for (let row = 0; row < kept.length && nKept < left; row++) {
      if (kept[row] === 0) continue;
      const start = row * d_model;
      rows.copyWithin(nKept++ * d_model, start, start + d_model);
    }
    if (nKept > 0) yield rows.subarray(0, nKept * d_model);
    left -= nKept;
    if (left <= 0) return;
  }
}
