/**
 * `export --to sae-bench`: measures an SAE as SAEBench's `core` evaluation does, and writes its result file.
 * @module
 */
// deno-lint-ignore-file no-console
import { basename, join } from "node:path";
import type { ConfigOf, FlagTable } from "../core/flags.ts";
import { hookPlace } from "../core/hook_point.ts";
import { type ModelFolder, startTokenId } from "../core/model_folder.ts";
import { saeLensConfig } from "../core/sae_write.ts";
import { checkSaeFits } from "../core/sae_fit.ts";
import { tokenizeDocuments } from "../core/tokenized_text.ts";
import { defined, featureDetails, miscMetrics } from "../train/sae_bench.ts";
import { openModel, openSae, type TaskContext, userPath } from "./cli.ts";
import { modelBytes, passBytes } from "./memory.ts";
import { checkNewFolder, writeNewFolder } from "./new_folder.ts";
import {
  type Bench,
  type BenchMeasures,
  longestBatch,
  measureBench,
} from "./sae_bench_measures.ts";
import { DOCUMENTS_HELP, typedDocuments } from "./text_open.ts";

/** What is measured on. */
export const SAE_BENCH_FLAGS = {
  text: {
    default: "storybook:102:160",
    help: `for sae-bench: what the model reads: ${DOCUMENTS_HELP}`,
  },
  text_column: { default: "text", help: "field or column of the text" },
  documents: {
    default: 160,
    integer: true,
    min: 1,
    help: "for sae-bench: most documents of the text",
  },
  batch_prompts: {
    default: 16,
    integer: true,
    min: 1,
    help:
      "for sae-bench: documents of a batch, on which its mse and legacy variance depend",
  },
} as const satisfies FlagTable;

type Flags = ConfigOf<typeof SAE_BENCH_FLAGS> & {
  readonly sae: string | undefined;
  readonly model: string | undefined;
  readonly layer: number | undefined;
  readonly any_model: boolean;
  readonly release: string;
  readonly gpu: string | undefined;
};

/** Measures, writes the file, and prints its path. */
export async function exportSaeBench(
  out: string,
  flags: Flags,
  context: TaskContext,
): Promise<void> {
  const folder = userPath(out);
  checkNewFolder(folder);
  const file = await openSae(flags.sae, flags.layer);
  const model = await openModel(flags.model);
  const hookPoint = checkSaeFits(file, model, { anyModel: flags.any_model });
  if (hookPlace(hookPoint).site !== "resid_post") {
    throw new RangeError(
      `Cannot measure "${file.name}" for SAEBench: expected an SAE of resid_post, whose reconstruction can take the stream's place: got one of ${hookPoint}`,
    );
  }
  const contextLength = Math.min(
    file.metadata.contextLength ?? 256,
    model.config.context_length,
  );
  const sequences = await readSequences(flags, model, contextLength, context);
  const gpu = await context.openGpu(flags.gpu);
  const bench: Bench = {
    ...{ gpu, file, model, hookPoint, sequences },
    batches: batchesOf(sequences, flags.batch_prompts),
  };
  planMemory(bench, context);
  const measures = await measureBench(bench, context);
  const result = resultOf(bench, measures, flags, contextLength);
  const { sae_lens_release_id: release, sae_lens_id: id } = result;
  const name = `${release}_${id}_eval_results.json`.replaceAll("/", "_");
  await writeNewFolder(
    folder,
    (write) => write(name, JSON.stringify(result, null, 2) + "\n"),
  );
  console.log(join(folder, name));
}

/** The result file's content. */
function resultOf(
  { file, model, hookPoint, batches }: Bench,
  { metrics, own, sparsity, features }: BenchMeasures,
  flags: Flags,
  contextLength: number,
) {
  const { d_model, d_sae, metadata } = file;
  const { modelName = model.name } = metadata;
  return {
    eval_type_id: "core",
    eval_config: configOf(flags, modelName, contextLength, batches),
    eval_id: crypto.randomUUID(),
    datetime_epoch_millis: Date.now(),
    eval_result_metrics: cleaned({
      ...{ ...metrics, sparsity, misc_metrics: miscMetrics(features) },
    }),
    eval_result_details: featureDetails(features),
    sae_bench_commit_hash: "Unknown",
    sae_lens_id: basename(file.name),
    sae_lens_release_id: flags.release,
    sae_lens_version: null,
    sae_cfg_dict: saeLensConfig({
      ...{ d_model, d_sae, metadata: { ...metadata, hookPoint, modelName } },
    }, "F32"),
    // By the formulas of this project, of the same vectors.
    eval_result_unstructured: { open_concept_steering: own },
  };
}

/** The first documents as token ids, from the start token on, cut at the context; those too short to predict anything are left out. */
async function readSequences(
  flags: Flags,
  model: ModelFolder,
  contextLength: number,
  { signal }: TaskContext,
): Promise<Uint32Array[]> {
  const documents = typedDocuments(flags.text, signal, {
    textColumn: flags.text_column,
  });
  const tokenized = tokenizeDocuments(documents, model.tokenizer, {
    startTokenId: startTokenId(model),
    contextLength,
  });
  const sequences: Uint32Array[] = [];
  for await (const { ids, index } of tokenized) {
    if (ids.length > 2) sequences.push(ids);
    if (index + 1 >= flags.documents) break;
  }
  if (sequences.length > 0) return sequences;
  throw new RangeError(
    `Cannot measure on "${flags.text}": expected documents of at least 3 tokens: got none`,
  );
}

function batchesOf(
  sequences: readonly Uint32Array[],
  size: number,
): Uint32Array[][] {
  const n = Math.ceil(sequences.length / size);
  return Array.from(
    { length: n },
    (_, i) => sequences.slice(i * size, (i + 1) * size),
  );
}

function configOf(
  flags: Flags,
  model_name: string,
  context_size: number,
  { length }: Bench["batches"],
): Readonly<Record<string, unknown>> {
  return {
    model_name,
    llm_dtype: "float32",
    batch_size_prompts: flags.batch_prompts,
    n_eval_reconstruction_batches: length,
    n_eval_sparsity_variance_batches: length,
    dataset: flags.text,
    context_size,
    compute_kl: true,
    compute_ce_loss: true,
    compute_l2_norms: true,
    compute_sparsity_metrics: true,
    compute_variance_metrics: true,
    compute_featurewise_density_statistics: true,
    compute_featurewise_weight_based_metrics: true,
    exclude_special_tokens_from_reconstruction: true,
    verbose: false,
  };
}

/** Measures with -1 for what is not defined. */
function cleaned(
  groups: Readonly<Record<string, Readonly<Record<string, number>>>>,
): Record<string, Record<string, number>> {
  return Object.fromEntries(
    Object.entries(groups).map(([group, measures]) => [
      group,
      Object.fromEntries(
        Object.entries(measures).map(([name, value]) => [name, defined(value)]),
      ),
    ]),
  );
}

function planMemory(bench: Bench, context: TaskContext): void {
  const { model, file: { d_model, d_sae } } = bench;
  const T = longestBatch(bench.batches);
  context.plan([
    { what: "model", bytes: modelBytes(model) },
    { what: "SAE", bytes: 4 * (2 * d_model * d_sae + d_model + d_sae) },
    {
      what: "a batch",
      bytes: passBytes(model.config, T, 1) +
        4 * (T * (d_sae + 5 * d_model) + 2 * 256 * model.config.vocab_size),
    },
  ]);
}
