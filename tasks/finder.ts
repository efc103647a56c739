/**
 * What `find` works with: a model, an SAE and its labels, and the index of its features.
 * @module
 */
import type { ConfigOf, FlagTable } from "../core/flags.ts";
import { hookPlace, type HookPoint } from "../core/hook_point.ts";
import { type ModelFolder, startTokenId } from "../core/model_folder.ts";
import { Olmo2 } from "../core/olmo2.ts";
import { Sae } from "../core/sae.ts";
import type { SaeFile } from "../core/sae_file.ts";
import { checkSaeFits } from "../core/sae_fit.ts";
import { type Corpus, type CorpusDocument, openCorpus } from "../core/text.ts";
import { tokenizeDocuments } from "../core/tokenized_text.ts";
import { featureActivations } from "../steer/activations.ts";
import {
  type ExampleQuery,
  type Examples,
  gatherExamples,
} from "../steer/examples.ts";
import {
  type FeatureIndex,
  FeatureIndexBuilder,
} from "../steer/feature_index.ts";
import { saeFingerprint } from "../steer/feature_index_file.ts";
import { type FeatureLabels, readLabels } from "../steer/labels.ts";
import {
  type FeatureMatch,
  type FeatureReader,
  searchFeatures,
} from "../steer/search.ts";
import {
  ANY_MODEL_FLAG,
  GPU_FLAGS,
  MODEL_FLAG,
  openModel,
  openSae,
  QUANTIZE_FLAG,
  SAE_FLAG,
  type TaskContext,
} from "./cli.ts";
import { formatCount } from "./format.ts";
import { modelBytes, passBytes } from "./memory.ts";
import { openSavedIndex } from "./saved_index.ts";
import { DOCUMENTS_HELP, findText } from "./text_open.ts";

/** Flags that say what is read, and with what. */
export const FINDER_FLAGS = {
  text: {
    default: "storybook:303:2000",
    help: `where words and contexts are looked up: ${DOCUMENTS_HELP}`,
  },
  text_column: { default: "text", help: "field or column of the text" },
  documents: {
    type: "number",
    integer: true,
    min: 1,
    help:
      "most documents of an index; all with --out, 300 for one that is made on the way",
  },
  index: {
    type: "string",
    help:
      "folder of an index that --out wrote; without it that in the SAE's folder, else one is made on the way",
  },
  context: {
    type: "number",
    integer: true,
    min: 2,
    unit: "tokens",
    help: "documents are cut here; as the SAE was trained without it, or 256",
  },
  layer: {
    type: "number",
    integer: true,
    min: 0,
    help: "block of an SAE whose files do not tell it",
  },
  ...SAE_FLAG,
  ...MODEL_FLAG,
  ...QUANTIZE_FLAG,
  ...ANY_MODEL_FLAG,
  ...GPU_FLAGS,
} as const satisfies FlagTable;

/** Values of {@link FINDER_FLAGS}. */
export type FinderFlags = ConfigOf<typeof FINDER_FLAGS>;

/** Documents of an index that nobody asked to keep: a few seconds on a software driver. */
const QUICK_DOCUMENTS = 300;
/** Documents in which words are looked up. */
const SEARCH_DOCUMENTS = 20_000;
const TOKENS_PER_PASS = 2048;

/** A model and an SAE, opened and checked; they go to the GPU when something is to be read. */
export class Finder {
  /** The SAE's files. */
  readonly sae: SaeFile;
  /** The model's files. */
  readonly model: ModelFolder;
  /** Where the SAE reads. */
  readonly hookPoint: HookPoint;
  /** Names of features. */
  readonly labels: FeatureLabels;
  /** Tells what an index must be of. */
  readonly fingerprints: {
    readonly modelFingerprint: string;
    readonly saeFingerprint: string;
  };
  readonly #flags: FinderFlags;
  readonly #context: TaskContext;
  #reader: Promise<FeatureReader> | undefined;

  private constructor(
    opened: Pick<
      Finder,
      "sae" | "model" | "hookPoint" | "labels" | "fingerprints"
    >,
    flags: FinderFlags,
    context: TaskContext,
  ) {
    this.sae = opened.sae;
    this.model = opened.model;
    this.hookPoint = opened.hookPoint;
    this.labels = opened.labels;
    this.fingerprints = opened.fingerprints;
    this.#flags = flags;
    this.#context = context;
  }

  /**
   * Opens the files and checks that they belong together.
   * @throws {Error} As `openSae`, `openModel`, `checkSaeFits` and `readLabels`.
   */
  static async open(
    flags: FinderFlags,
    context: TaskContext,
  ): Promise<Finder> {
    const sae = await openSae(flags.sae, flags.layer);
    const model = await openModel(flags.model, flags.quantize);
    const hookPoint = checkSaeFits(sae, model, { anyModel: flags.any_model });
    const { context_length } = model.config;
    if (flags.context !== undefined && flags.context > context_length) {
      throw new RangeError(
        `Cannot find with --context ${flags.context}: the context of model "${model.name}" is ${context_length} tokens: shorten it`,
      );
    }
    const labels = await readLabels(sae.beside, sae.d_sae);
    const fingerprints = {
      modelFingerprint: model.fingerprint,
      saeFingerprint: await saeFingerprint(sae),
    };
    const opened = { sae, model, hookPoint, labels, fingerprints };
    return new Finder(opened, flags, context);
  }

  /** Tokens at which documents are cut. */
  get contextLength(): number {
    const { context = this.sae.metadata.contextLength ?? 256 } = this.#flags;
    return Math.min(context, this.model.config.context_length);
  }

  /**
   * The index that `--index` names, that of the SAE's folder, or one made now of a few documents.
   * @throws {Error} As `loadFeatureIndex` and {@link makeIndex}.
   */
  async index(): Promise<FeatureIndex> {
    const { documents = QUICK_DOCUMENTS } = this.#flags;
    return await this.savedIndex() ?? await this.makeIndex(documents);
  }

  /**
   * The index that `--index` names, or that of the SAE's folder; undefined where there is neither.
   * @throws {Error} As `loadFeatureIndex`.
   */
  savedIndex(): Promise<FeatureIndex | undefined> {
    return openSavedIndex(this.sae, this.model, this.#flags.index);
  }

  /**
   * Reads the first documents of the text and gathers what fires.
   * @throws {RangeError} If a token cannot be run, or the text has no document.
   */
  async makeIndex(nDocuments: number): Promise<FeatureIndex> {
    const { signal } = this.#context;
    const reader = await this.reader();
    const { text } = this.#flags;
    const { d_sae } = this.sae;
    const source = { ...this.fingerprints, text };
    const builder = new FeatureIndexBuilder(source, d_sae);
    const documents = tokenizeDocuments(
      this.documents(nDocuments),
      this.model.tokenizer,
      {
        startTokenId: reader.startTokenId,
        contextLength: this.contextLength,
      },
    );
    const total = Number.isFinite(nDocuments) ? { total: nDocuments } : {};
    using bar = this.#context.progress({
      label: "index",
      unit: "documents",
      ...total,
    });
    let n = 0;
    for await (
      const { sequence, acts } of featureActivations(
        reader.model,
        reader.sae,
        this.hookPoint,
        documents,
        { tokensPerPass: this.#tokensPerPass },
      )
    ) {
      signal.throwIfAborted();
      builder.add(sequence, acts);
      bar.update(++n, `${formatCount(builder.nTokens)} tokens`);
    }
    bar.end();
    return builder.finish();
  }

  /** Collects the texts of a search. */
  async examples(query: ExampleQuery): Promise<Examples> {
    return await gatherExamples(query, this.documents(SEARCH_DOCUMENTS));
  }

  /** Ranks the features by how well they tell the examples from other texts. */
  async search(examples: Examples, limit: number): Promise<FeatureMatch[]> {
    return await searchFeatures(await this.reader(), examples, { limit });
  }

  /** The first documents of the text. */
  async *documents(nDocuments: number): AsyncGenerator<CorpusDocument> {
    const { read } = await this.corpus();
    for await (const { document } of read(0, nDocuments)) {
      this.#context.signal.throwIfAborted();
      yield document;
    }
  }

  /** The text. */
  async corpus(): Promise<Corpus> {
    const { text, text_column } = this.#flags;
    const found = await findText(text, { signal: this.#context.signal });
    return await openCorpus(text, found.open, { textColumn: text_column });
  }

  /** Puts the model, as far as it is needed, and the SAE on the GPU, once. */
  reader(): Promise<FeatureReader> {
    return this.#reader ??= this.#load();
  }

  get #tokensPerPass(): number {
    return Math.max(TOKENS_PER_PASS, this.contextLength);
  }

  async #load(): Promise<FeatureReader> {
    const { config, checkpoint, tokenizer } = this.model;
    const { d_model, d_sae } = this.sae;
    const part = {
      nLayers: hookPlace(this.hookPoint).layer + 1,
      withHead: false,
    };
    const T = this.#tokensPerPass;
    const gpu = await this.#context.openGpu(this.#flags.gpu);
    this.#context.plan([
      { what: "model", bytes: modelBytes(this.model, part) },
      { what: "SAE", bytes: 4 * (2 * d_model * d_sae + d_model + d_sae) },
      {
        what: `a pass of ${formatCount(T)} tokens`,
        bytes: passBytes(config, T, 1) + 4 * T * (d_sae + 2 * d_model),
      },
    ]);
    // They live as long as the GPU, which frees them.
    const model = await Olmo2.load(gpu, checkpoint, config, {
      ...part,
      quantize: this.model.quantize,
    });
    return {
      model,
      tokenizer,
      startTokenId: startTokenId(this.model),
      sae: await Sae.load(gpu, this.sae),
      hookPoint: this.hookPoint,
      featureMax: await this.sae.featureMax(),
    };
  }
}
