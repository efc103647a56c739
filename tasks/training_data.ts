/**
 * What `train` trains on: residuals that were collected, or a model's own while it reads a text.
 * @module
 */
import type { ConfigOf, FlagTable } from "../core/flags.ts";
import {
  defaultHookPoint,
  hookPlace,
  parseHookPoint,
} from "../core/hook_point.ts";
import { nameOfFolder } from "../core/hub_cache.ts";
import { dataFingerprint, type ModelFolder } from "../core/model_folder.ts";
import { ResidualFolder } from "../core/residuals.ts";
import { readDocuments } from "../core/text.ts";
import type { Gpu } from "../gpu/mod.ts";
import type { BatchSource } from "../train/batch_source.ts";
import { documentPasses } from "../train/document_passes.ts";
import { LiveRows } from "../train/live_rows.ts";
import { type FolderAddress, openFolderAt } from "../train/folder_address.ts";
import { PrefetchedBatches } from "../train/prefetched_batches.ts";
import type { SaeRecipe } from "../train/recipe.ts";
import { ResidualReader } from "../train/residual_reader.ts";
import { RowFilter } from "../train/row_filter.ts";
import { rowGroupsOf } from "../train/row_groups.ts";
import type { TrainOptions } from "../train/train.ts";
import {
  openModel,
  openPath,
  QUANTIZE_FLAG,
  type TaskContext,
  userPath,
} from "./cli.ts";
import { formatCount } from "./format.ts";
import { modelBytes, passBytes } from "./memory.ts";
import type { MemoryRow } from "./memory_plan.ts";
import { folderAddress } from "./storage.ts";
import { checkText, fileSizes } from "./text_check.ts";

/** Where vectors come from: `--residuals`, or `--text` with `--model`. */
export const DATA_FLAGS = {
  residuals: {
    type: "string",
    help: "folder that collect wrote, also s3://BUCKET/FOLDER",
  },
  text: {
    type: "string",
    help:
      "train straight from the model on this text, without storing vectors: storybook:SEED:N, a .txt, .jsonl or .parquet file, or a folder of these",
  },
  text_column: { default: "text", help: "field or column of the text" },
  model: {
    type: "string",
    help:
      "folder of the model that reads --text; models/tiny-olmo2 of this repo without it",
  },
  ...QUANTIZE_FLAG,
  hook: {
    type: "string",
    help:
      "where --text is read: resid_post[l] or final_norm@l; without it the middle, resid_post[layers/2 - 1]",
  },
  context: {
    type: "number",
    integer: true,
    min: 2,
    unit: "tokens",
    help:
      "documents of --text are cut here; 256 or the model's context without it",
  },
  skip_first: {
    default: 1,
    integer: true,
    min: 0,
    unit: "tokens",
    help: "left out at the start of each document of --text",
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
 * @throws {RangeError} If they name none, or both kinds.
 */
export async function findTrainingData(
  flags: DataFlags,
  context: TaskContext,
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
    ? await findText(flags, text!, context)
    : await findResiduals(folderAddress(residuals), context);
}

async function findResiduals(
  address: FolderAddress,
  context: TaskContext,
): Promise<TrainingInput> {
  const folder = await ResidualFolder.open(openFolderAt(address));
  const { model, hookPoint, contextLength, text, n_tokens, ...manifest } =
    folder.manifest;
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
      shards: manifest.shards.map(({ sha256 }) => sha256),
    },
    metadata: {
      hookPoint,
      modelName: model.name,
      modelFingerprint: model.fingerprint,
      contextLength,
      text,
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
  text: string,
  context: TaskContext,
): Promise<TrainingInput> {
  const model = await openModel(flags.model, flags.quantize);
  const { context_length, n_layers, d_model } = model.config;
  const hookPoint = flags.hook === undefined
    ? defaultHookPoint(n_layers)
    : parseHookPoint(flags.hook, n_layers);
  const contextLength = flags.context ?? Math.min(256, context_length);
  if (contextLength > context_length) {
    throw new RangeError(
      `Cannot train with --context ${contextLength}: the context of model "${model.name}" is ${context_length} tokens: shorten it`,
    );
  }
  const source = text.startsWith("storybook:") ? text : userPath(text);
  const documents = () =>
    readDocuments(source, openPath, { textColumn: flags.text_column });
  // An endless text can only be looked into.
  const nDocuments = /^storybook:\d+$/.test(source) ? 1 : Infinity;
  await checkText(documents(), { text: source, nDocuments }, context);
  const passes = {
    contextLength,
    tokensPerPass: flags.pass_tokens,
    skipFirst: flags.skip_first,
  };
  const maxTokens = Math.max(passes.tokensPerPass, contextLength);
  const nLayers = hookPlace(hookPoint).layer + 1;
  return {
    d_model,
    nOnHost: 0,
    id: {
      model: dataFingerprint(model),
      text: source,
      textColumn: flags.text_column,
      files: await fileSizes(source),
      hookPoint,
      ...passes,
    },
    metadata: {
      hookPoint,
      modelName: nameOfFolder(model.name),
      modelFingerprint: dataFingerprint(model),
      contextLength,
      text: source,
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
      const live = { gpu, reader, text: source, documents, ...passes };
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
  { reader, documents, contextLength, tokensPerPass, skipFirst }: {
    readonly reader: ResidualReader;
    readonly documents: () => ReturnType<typeof readDocuments>;
    readonly contextLength: number;
    readonly tokensPerPass: number;
    readonly skipFirst: number;
  },
  model: ModelFolder,
  n: number,
  signal: AbortSignal,
): AsyncGenerator<Uint16Array<ArrayBuffer>> {
  const { d_model } = model.config;
  const config = { contextLength, tokensPerPass };
  let left = n;
  for await (const pass of documentPasses(documents(), model, config, 0)) {
    signal.throwIfAborted();
    reader.submit(pass.map(({ ids }) => ids));
    const rows = await reader.rows();
    let start = 0; // of the document in the pass
    for (const { ids: { length } } of pass) {
      const first = start + Math.min(skipFirst, length);
      start += length;
      const end = Math.min(start, first + left);
      if (end > first) yield rows.subarray(first * d_model, end * d_model);
      left -= end - first;
      if (left <= 0) return;
    }
  }
}
