/**
 * Features as Neuronpedia imports them: `{modelId}/{layer}-{sourceSet}/` with JSON lines of the release, the model, the
 * source set and the source, and gzipped batches of features, activations and explanations.
 * What is not known is null or empty, as Neuronpedia's own converter leaves it.
 * @module
 */
import { gzip } from "../core/gzip.ts";
import type { Tokenizer } from "../core/tokenizer.ts";
import type { FeatureEntry, FeatureIndex } from "./feature_index.ts";
import type { FeatureLabels } from "./labels.ts";
import type { LogitLens, TokenLogit } from "./logit_lens.ts";

/** Features of a batch, as in Neuronpedia's exports. */
const BATCH_FEATURES = 1024;
/** Strength of a vector whose feature never fires, as Neuronpedia has it. */
const DEFAULT_STRENGTH = 10;

/** What people say of the features, and how Neuronpedia is to call them. */
export interface NeuronpediaNames {
  /** Neuronpedia's id of the model: letters, digits, `-` and `_`. */
  readonly modelId: string;
  /** What is said of the model beside its id. */
  readonly model: {
    readonly instruct: boolean;
    readonly dimension: number;
    readonly layers: number;
    readonly neuronsPerLayer: number;
    readonly owner: string;
  };
  /** Block of the SAE, which starts the source's id. */
  readonly layer: number;
  /** TransformerLens's name of the hook point; null where it has none. */
  readonly hookName: string | null;
  /** Which set of SAEs this one is of, such as `res-16k`. */
  readonly sourceSet: string;
  /** Says what the set is. */
  readonly description: string;
  readonly release: {
    readonly name: string;
    readonly title: string;
    readonly urls: readonly string[];
  };
  readonly creatorName: string;
  /** Id of the Neuronpedia user that things belong to. */
  readonly creatorId: string;
  /** Tokens at which documents of the text were cut; null where nobody knows. */
  readonly contextLength: number | null;
  /** Where the weights lie on the hub; null where they do not. */
  readonly hfRepoId: string | null;
  readonly hfFolderId: string | null;
  /** When it was made, in ISO 8601. */
  readonly createdAt: string;
  /** 16 hex digits that no other source has: ids of rows begin with them. */
  readonly idPrefix: string;
}

/** What {@link neuronpediaFiles} writes of. */
export interface NeuronpediaExport {
  readonly names: NeuronpediaNames;
  readonly index: FeatureIndex;
  readonly labels: FeatureLabels;
  readonly tokenizer: Pick<Tokenizer, "decode">;
  /** Every feature's, in order. */
  readonly lenses: AsyncIterable<LogitLens>;
  /** What features [start, end) write, for a source that carries its vectors. */
  readonly rowsOfDecoder?: (
    start: number,
    end: number,
  ) => Promise<Float32Array>;
}

/** A file of the tree. */
export interface ExportedFile {
  /** Below the folder of the export, with `/`. */
  readonly path: string;
  readonly content: string | Uint8Array<ArrayBuffer>;
  /** Features that are done with this file and those before it. */
  readonly nFeatures: number;
}

/** Id of the source: `{layer}-{sourceSet}`. */
export function sourceId(
  { layer, sourceSet }: Pick<NeuronpediaNames, "layer" | "sourceSet">,
): string {
  return `${layer}-${sourceSet}`;
}

/** The files of an export, in the order in which they are written. */
export async function* neuronpediaFiles(
  options: NeuronpediaExport,
): AsyncGenerator<ExportedFile> {
  const { names, index } = options;
  const folder = `${names.modelId}/${sourceId(names)}`;
  for (const [name, row] of Object.entries(headRows(names, index))) {
    const content = JSON.stringify(row) + "\n";
    yield { path: `${folder}/${name}.jsonl`, content, nFeatures: 0 };
  }
  const { d_sae } = index.header;
  const lenses = options.lenses[Symbol.asyncIterator]();
  for (let start = 0; start < d_sae; start += BATCH_FEATURES) {
    const end = Math.min(start + BATCH_FEATURES, d_sae);
    const batch = await batchRows(options, lenses, start, end);
    for (const [kind, rows] of Object.entries(batch)) {
      // Neuronpedia's import does not take an empty file.
      if (rows.length === 0) continue;
      const text = rows.map((row) => JSON.stringify(row) + "\n").join("");
      yield {
        path: `${folder}/${kind}/batch-${start / BATCH_FEATURES}.jsonl.gz`,
        content: await gzip(new TextEncoder().encode(text)),
        nFeatures: end,
      };
    }
  }
}

async function batchRows(
  { names, index, labels, tokenizer, rowsOfDecoder }: NeuronpediaExport,
  lenses: AsyncIterator<LogitLens>,
  start: number,
  end: number,
): Promise<Record<"features" | "activations" | "explanations", unknown[]>> {
  const features: unknown[] = [];
  const activations: unknown[] = [];
  const explanations: unknown[] = [];
  const vectors = await rowsOfDecoder?.(start, end);
  const d_model = vectors && vectors.length / (end - start);
  for (let feature = start; feature < end; feature++) {
    const { value: lens } = await lenses.next();
    const entry = index.entry(feature);
    const at = (feature - start) * (d_model ?? 0);
    const vector = Array.from(vectors?.subarray(at, at + d_model!) ?? []);
    features.push(featureRow(names, tokenizer, { entry, lens, vector }));
    for (const [i, context] of entry.contexts.entries()) {
      activations.push(activationRow(names, tokenizer, {
        feature,
        id: rowId(names, feature * index.header.nContexts + i),
        context,
      }));
    }
    const label = labels.get(feature);
    if (label) {
      explanations.push({
        id: rowId(names, feature),
        modelId: names.modelId,
        layer: sourceId(names),
        index: String(feature),
        description: label.label,
        authorId: names.creatorId,
        embedding: null,
        triggeredByUserId: null,
        typeName: null,
        explanationModelName: null,
        notes: label.source ?? null,
        createdAt: names.createdAt,
      });
    }
  }
  return { features, activations, explanations };
}

/** 25 characters from "c" on, as cuids have; the same each time, so that importing twice adds nothing. */
function rowId({ idPrefix }: NeuronpediaNames, n: number): string {
  return `c${idPrefix}${n.toString(36).padStart(8, "0")}`;
}

/** The one row of each file that is not of features. */
function headRows(
  names: NeuronpediaNames,
  { header }: FeatureIndex,
): Record<"release" | "model" | "sourceset" | "source", unknown> {
  const { modelId, creatorId, creatorName, createdAt, release } = names;
  const { model, sourceSet, description } = names;
  return {
    release: {
      name: release.name,
      description: release.title,
      descriptionShort: release.title,
      creatorName,
      creatorNameShort: creatorName,
      creatorEmail: null,
      creatorId,
      visibility: "PUBLIC",
      isNewUi: false,
      featured: false,
      urls: release.urls,
      defaultSourceSetName: null,
      defaultSourceId: null,
      defaultUmapSourceIds: [],
      createdAt,
    },
    model: {
      id: modelId,
      ...model,
      displayNameShort: modelId,
      displayName: modelId,
      creatorId,
      tlensId: null,
      visibility: "PUBLIC",
      defaultSourceSetName: null,
      defaultSourceId: null,
      inferenceEnabled: false,
      website: null,
      createdAt,
      updatedAt: createdAt,
    },
    sourceset: {
      modelId,
      name: sourceSet,
      description,
      type: "",
      creatorId,
      creatorName,
      creatorEmail: null,
      hasDashboards: true,
      visibility: "PUBLIC",
      urls: release.urls,
      releaseName: release.name,
      defaultOfModelId: null,
      defaultRange: 1,
      defaultShowBreaks: true,
      showDfa: false,
      showCorrelated: false,
      showHeadAttribution: false,
      showUmap: false,
      createdAt,
    },
    source: {
      id: sourceId(names),
      modelId,
      setName: sourceSet,
      creatorId,
      hasDashboards: true,
      inferenceEnabled: false,
      inferenceHosts: [],
      saelensConfig: null,
      saelensRelease: null,
      saelensSaeId: null,
      hfRepoId: names.hfRepoId,
      hfFolderId: names.hfFolderId,
      visibility: "PUBLIC",
      defaultOfModelId: null,
      hasUmap: false,
      hasUmapLogSparsity: false,
      hasUmapClusters: false,
      num_prompts: header.nDocuments,
      num_tokens_in_prompt: names.contextLength,
      dataset: header.text,
      notes: null,
      createdAt,
    },
  };
}

function featureRow(
  names: NeuronpediaNames,
  tokenizer: Pick<Tokenizer, "decode">,
  { entry, lens, vector }: {
    entry: FeatureEntry;
    lens: LogitLens;
    vector: readonly number[];
  },
): unknown {
  const text = ({ id }: TokenLogit): string => tokenizer.decode([id]);
  const logit = ({ logit }: TokenLogit): number => logit;
  const hasVector = vector.length > 0;
  return {
    modelId: names.modelId,
    layer: sourceId(names),
    index: String(entry.feature),
    creatorId: names.creatorId,
    createdAt: names.createdAt,
    maxActApprox: entry.max,
    hasVector,
    vector,
    vectorLabel: null,
    vectorDefaultSteerStrength: hasVector && entry.max > 0
      ? entry.max
      : DEFAULT_STRENGTH,
    hookName: hasVector ? names.hookName : null,
    topkCosSimIndices: [],
    topkCosSimValues: [],
    neuron_alignment_indices: [],
    neuron_alignment_values: [],
    neuron_alignment_l1: [],
    correlated_neurons_indices: [],
    correlated_neurons_pearson: [],
    correlated_neurons_l1: [],
    correlated_features_indices: [],
    correlated_features_pearson: [],
    correlated_features_l1: [],
    neg_str: lens.bottom.map(text),
    neg_values: lens.bottom.map(logit),
    pos_str: lens.top.map(text),
    pos_values: lens.top.map(logit),
    frac_nonzero: entry.density,
    freq_hist_data_bar_heights: [],
    freq_hist_data_bar_values: [],
    logits_hist_data_bar_heights: lens.histogram.heights,
    logits_hist_data_bar_values: lens.histogram.values,
    decoder_weights_dist: [],
    sourceSetName: names.sourceSet,
  };
}

function activationRow(
  names: NeuronpediaNames,
  tokenizer: Pick<Tokenizer, "decode">,
  { feature, id, context }: {
    feature: number;
    id: string;
    context: FeatureEntry["contexts"][number];
  },
): unknown {
  const { ids, acts, activation, position, start, document } = context;
  return {
    id,
    tokens: ids.map((id) => tokenizer.decode([id])),
    index: String(feature),
    layer: sourceId(names),
    modelId: names.modelId,
    maxValue: activation,
    maxValueTokenIndex: position - start,
    minValue: Math.min(...acts),
    values: acts,
    creatorId: names.creatorId,
    dataSource: null,
    dataIndex: document,
    dfaValues: [],
    dfaTargetIndex: null,
    dfaMaxValue: null,
    createdAt: names.createdAt,
    lossValues: [],
    logitContributions: null,
    binMin: null,
    binMax: null,
    binContains: null,
    qualifyingTokenIndex: null,
  };
}
