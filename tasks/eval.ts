/**
 * Measures an SAE: `./ocs eval --sae out/sae --residuals out/residuals`.
 * @module
 */
// deno-lint-ignore-file no-console
import type { ConfigOf, FlagTable } from "../core/flags.ts";
import { hookPlace, type HookPoint } from "../core/hook_point.ts";
import { type ModelFolder, startTokenId } from "../core/model_folder.ts";
import { Olmo2 } from "../core/olmo2.ts";
import { ResidualFolder } from "../core/residuals.ts";
import { Sae } from "../core/sae.ts";
import type { SaeFile } from "../core/sae_file.ts";
import { checkResidualsFit, checkSaeFits } from "../core/sae_fit.ts";
import { passes } from "../core/score.ts";
import { tokenizeDocuments } from "../core/tokenized_text.ts";
import type { Gpu } from "../gpu/mod.ts";
import type { ConceptScore } from "../steer/concept_f1.ts";
import { findConceptFeatures } from "../steer/concept_features.ts";
import { evaluateResiduals } from "../train/evaluate.ts";
import { type LossRecovered, lossRecovered } from "../train/loss_recovered.ts";
import { ResidualReader } from "../train/residual_reader.ts";
import { RowSums } from "../train/row_sums.ts";
import {
  ANY_MODEL_FLAG,
  GPU_FLAGS,
  MODEL_FLAG,
  openModel,
  openSae,
  QUANTIZE_FLAG,
  runTask,
  SAE_FLAG,
  type TaskContext,
  type TaskSpec,
} from "./cli.ts";
import { describeEvaluation, type EvalReport } from "./eval_report.ts";
import { formatCount } from "./format.ts";
import { modelBytes, passBytes } from "./memory.ts";
import { openFolder } from "./storage.ts";
import { DOCUMENTS_HELP, typedDocuments } from "./text_open.ts";

const FLAGS = {
  ...SAE_FLAG,
  residuals: {
    type: "string",
    help:
      "folder that collect wrote, also s3://BUCKET/FOLDER, to measure on; without it the vectors that the text makes",
  },
  last: {
    type: "number",
    integer: true,
    min: 1,
    unit: "vectors",
    help:
      "measure on the last ones of the residuals only, such as those that training held out",
  },
  text: {
    default: "storybook:102:200",
    help: `what the model reads for the cross-entropies: ${DOCUMENTS_HELP}`,
  },
  text_column: { default: "text", help: "field or column of the text" },
  documents: {
    default: 200,
    integer: true,
    min: 1,
    help: "most documents of the text",
  },
  loss: { default: true, help: "measure the cross-entropy recovered" },
  concepts: {
    type: "string",
    help:
      "also the best F1 of a feature for each concept of this labelled text, such as storybook:102:400",
  },
  layer: {
    type: "number",
    integer: true,
    min: 0,
    help: "block of an SAE whose files do not tell it",
  },
  pass_tokens: {
    default: 1024,
    integer: true,
    min: 1,
    unit: "tokens",
    help: "read at once",
  },
  json: { default: false, help: "print JSON" },
  ...ANY_MODEL_FLAG,
  ...MODEL_FLAG,
  ...QUANTIZE_FLAG,
  ...GPU_FLAGS,
} as const satisfies FlagTable;

type Flags = ConfigOf<typeof FLAGS>;

async function evaluate(
  flags: Flags,
  context: TaskContext,
): Promise<EvalReport> {
  const { signal, note } = context;
  const file = await openSae(flags.sae, flags.layer);
  const model = await openModel(flags.model, flags.quantize);
  const anyModel = { anyModel: flags.any_model };
  const hookPoint = checkSaeFits(file, model, anyModel);
  const folder = flags.residuals === undefined
    ? undefined
    : await ResidualFolder.open(openFolder(flags.residuals));
  if (folder) checkResidualsFit(file, folder, anyModel);
  const isStream = hookPlace(hookPoint).site === "resid_post";
  if (flags.loss && !isStream) {
    note(
      `no cross-entropies: an SAE of ${hookPoint} reconstructs what the model reads there, not its stream`,
    );
  }
  const wantsLoss = flags.loss && isStream;
  const sequences = wantsLoss || !folder
    ? await readSequences(flags, file, model, signal)
    : [];
  const gpu = await context.openGpu(flags.gpu);
  context.plan(memoryPlan(model, file, flags.pass_tokens));
  using sae = await Sae.load(gpu, file);
  const sums = new RowSums(file.d_model);
  using bar = context.progress({ label: "eval", unit: "vectors" });
  const rows = folder
    ? folderRows(folder, flags.last ?? folder.manifest.n_tokens)
    : textRows(gpu, model, hookPoint, sequences, flags.pass_tokens);
  const { density: _, featureMax: _max, ...vectors } = await evaluateResiduals(
    gpu,
    sae,
    tapped(rows, (run) => {
      signal.throwIfAborted();
      sums.add(run);
      bar.update(sums.n);
    }),
  );
  bar.end();
  const loss = wantsLoss
    ? await measureLoss(
      { gpu, model, sae, hookPoint, sequences, mean: sums.mean() },
      flags,
      context,
    )
    : null;
  const concepts = flags.concepts === undefined
    ? null
    : await measureConcepts(gpu, model, sae, hookPoint, flags, context);
  return {
    sae: file.name,
    hookPoint,
    d_sae: file.d_sae,
    vectors,
    loss,
    concepts,
  };
}

/** The first documents of the text as token ids, those of one token left out. */
async function readSequences(
  flags: Flags,
  sae: SaeFile,
  model: ModelFolder,
  signal: AbortSignal,
): Promise<Uint32Array[]> {
  const { context_length } = model.config;
  const documents = typedDocuments(flags.text, signal, {
    textColumn: flags.text_column,
  });
  const tokenized = tokenizeDocuments(documents, model.tokenizer, {
    startTokenId: startTokenId(model),
    contextLength: Math.min(sae.metadata.contextLength ?? 256, context_length),
  });
  const sequences: Uint32Array[] = [];
  for await (const { ids, index } of tokenized) {
    if (ids.length > 1) sequences.push(ids);
    if (index + 1 >= flags.documents) break;
  }
  if (sequences.length > 0) return sequences;
  throw new RangeError(
    `Cannot evaluate on "${flags.text}": expected documents of at least 2 tokens: got none`,
  );
}

/** The last n vectors of a residual folder. */
async function* folderRows(
  folder: ResidualFolder,
  n: number,
): AsyncGenerator<Uint16Array<ArrayBuffer>> {
  let left = Math.max(0, folder.manifest.n_tokens - n); // to leave out
  for await (const { rows, n_rows, d_model } of folder.batches()) {
    const from = Math.min(left, n_rows);
    left -= from;
    if (from < n_rows) yield rows.slice(from * d_model);
  }
}

/** The vectors that sequences make at a hook point, but for each first token, as collecting has it. */
async function* textRows(
  gpu: Gpu,
  model: ModelFolder,
  hookPoint: HookPoint,
  sequences: readonly Uint32Array[],
  passTokens: number,
): AsyncGenerator<Uint16Array<ArrayBuffer>> {
  const { d_model } = model.config;
  const lengths = sequences.map(({ length }) => length);
  const maxTokens = Math.max(passTokens, ...lengths);
  using reader = await ResidualReader.load(gpu, model, {
    hookPoint,
    maxTokens,
  });
  for (const { start, end } of passes(lengths, passTokens)) {
    const run = sequences.slice(start, end);
    reader.submit(run);
    const rows = await reader.rows();
    let token = 0;
    for (const { length } of run) {
      yield rows.slice((token + 1) * d_model, (token + length) * d_model);
      token += length;
    }
  }
}

/** The same items, each shown to `see` as it passes. */
async function* tapped<T>(
  items: AsyncIterable<T>,
  see: (item: T) => void,
): AsyncGenerator<T> {
  for await (const item of items) {
    see(item);
    yield item;
  }
}

interface LossInputs {
  readonly gpu: Gpu;
  readonly model: ModelFolder;
  readonly sae: Sae;
  readonly hookPoint: HookPoint;
  readonly sequences: readonly Uint32Array[];
  readonly mean: Float64Array;
}

async function measureLoss(
  { gpu, model, sae, hookPoint, sequences, mean }: LossInputs,
  flags: Flags,
  { progress, signal }: TaskContext,
): Promise<LossRecovered> {
  using olmo2 = await Olmo2.load(gpu, model.checkpoint, model.config, {
    quantize: model.quantize,
  });
  const nTokens = 4 * sequences.reduce((n, { length }) => n + length, 0);
  using bar = progress({
    label: "cross-entropy",
    unit: "tokens",
    total: nTokens,
  });
  const loss = await lossRecovered({
    model: olmo2,
    sae,
    hookPoint,
    sequences,
    mean,
    tokensPerPass: flags.pass_tokens,
    onProgress: (share) => bar.update(Math.round(share * nTokens)),
    signal,
  });
  bar.end();
  return loss;
}

/** The best feature of each concept of a labelled text. */
async function measureConcepts(
  gpu: Gpu,
  model: ModelFolder,
  sae: Sae,
  hookPoint: HookPoint,
  flags: Flags,
  { progress, signal }: TaskContext,
): Promise<ConceptScore[]> {
  const nLayers = hookPlace(hookPoint).layer + 1;
  using olmo2 = await Olmo2.load(gpu, model.checkpoint, model.config, {
    quantize: model.quantize,
    nLayers,
    withHead: false,
  });
  const documents = tokenizeDocuments(
    typedDocuments(flags.concepts ?? "", signal),
    model.tokenizer,
    {
      startTokenId: startTokenId(model),
      contextLength: Math.min(256, model.config.context_length),
    },
  );
  using bar = progress({ label: "concepts", unit: "documents" });
  const scores = await findConceptFeatures(olmo2, sae, hookPoint, documents, {
    onProgress: (n) => bar.update(n),
    signal,
  });
  bar.end();
  return scores;
}

function memoryPlan(
  model: ModelFolder,
  { d_model, d_sae }: SaeFile,
  T: number,
): { what: string; bytes: number }[] {
  const { vocab_size } = model.config;
  return [
    { what: "model", bytes: modelBytes(model) },
    { what: "SAE", bytes: 4 * (2 * d_model * d_sae + d_model + d_sae) },
    {
      what: `a pass of ${formatCount(T)} tokens`,
      bytes: passBytes(model.config, T, 1) +
        4 * (T * (d_sae + 2 * d_model) + Math.min(T, 512) * vocab_size),
    },
  ];
}

/** The task, for the command line and for tasks that have it as a stage. */
export const EVAL: TaskSpec<typeof FLAGS> = {
  name: "eval",
  description:
    "Measures an SAE: variance it leaves unexplained, features that fire, dead ones, and the model's cross-entropy that it recovers.",
  flags: FLAGS,
};

/** Measures what the flags say, and prints it. */
export async function evalTask(
  flags: Flags,
  context: TaskContext,
): Promise<EvalReport> {
  const report = await evaluate(flags, context);
  console.log(
    flags.json ? JSON.stringify(report, null, 2) : describeEvaluation(report),
  );
  return report;
}

if (import.meta.main) {
  await runTask(EVAL, async (flags, context) => {
    await evalTask(flags, context);
  });
}
