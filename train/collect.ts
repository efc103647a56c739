/**
 * Collects residual streams: contexts of a text → forward up to the hook's block
 * → bf16 rows → parquet shards, each with its tokens, and a manifest.
 * @module
 */
import type { TextShard } from "../core/text_order.ts";
import { dataFingerprint } from "../core/model_folder.ts";
import {
  manifestFile,
  type ResidualManifest,
} from "../core/residual_manifest.ts";
import type { ResidualLayout } from "../core/residual_pages.ts";
import {
  type NewResidualHeader,
  ResidualShardWriter,
} from "../core/residual_writer.ts";
import type { Store } from "../core/store.ts";
import type { ReadCorpus } from "../core/text.ts";
import type { TextPosition, TokenContext } from "../core/token_contexts.ts";
import {
  contextPasses,
  type PassConfig,
  TEXT_START,
} from "./context_passes.ts";
import { labeledRows } from "./labeled_rows.ts";
import { ResidualOutput, writeManifest } from "./residual_output.ts";
import type { ResidualReader } from "./residual_reader.ts";

/** What decides the vectors of a collection, beside model and hook point. */
export interface CollectConfig extends PassConfig {
  /** Name of the model, for people. */
  readonly modelName: string;
  /** Commit of its repository, where that is known. */
  readonly revision?: string | undefined;
  /** The text, as `openCorpus` takes it. */
  readonly text: string;
  /** Seed of the order of its documents; their own order when absent. */
  readonly shuffle?: number | undefined;
  /** How rows lie in the files. */
  readonly layout: ResidualLayout;
  /** A shard is closed by the first pass that brings it to this many vectors. */
  readonly shardRows: number;
  /** Most vectors; all when absent. */
  readonly maxVectors?: number;
}

/** How far a collection is. */
export interface CollectProgress {
  /** Documents that begin in shards or in memory. */
  readonly nDocuments: number;
  /** Vectors in shards or in memory. */
  readonly nVectors: number;
  /** Tokens that went through the model in this run, those that are left out included. */
  readonly nTokensRead: number;
}

/** Options of {@link collectResiduals}. */
export interface CollectOptions {
  readonly reader: ResidualReader;
  readonly config: CollectConfig;
  /** Reads the text, or the task's part of it. */
  readonly read: ReadCorpus;
  /** The task among several that write into one folder; absent where one does all. */
  readonly shard?: TextShard | undefined;
  /** The output folder, claimed for this task. */
  readonly store: Store;
  /** Fingerprint of the configuration, the same for all tasks. */
  readonly fingerprint: string;
  /** How far the folder is, when the run goes on. */
  readonly before?: ResidualManifest | undefined;
  /** Called after every pass. */
  readonly onProgress?: (progress: CollectProgress) => void;
  /** Stops between two passes; complete shards stay, and the run can be resumed. */
  readonly signal?: AbortSignal;
}

/** Contexts that went through the model, with the bits of bf16 `[T, d_model]` of all their tokens. */
interface Pass {
  readonly contexts: readonly TokenContext[];
  readonly rows: Promise<Uint16Array<ArrayBuffer>>;
}

/**
 * Collects what a text brings at a hook point, from where the manifest stands.
 * While the GPU works on a pass, the host packs the one before, makes the next and writes shards: the next
 * pass is submitted before the rows of the last one are waited for. Shards end where passes end, and what a pass holds
 * depends on its first token alone, so that a run that was stopped and goes on writes the same bytes as one that was not.
 * @returns The manifest of the complete collection.
 * @throws {RangeError} If a vector is not finite (names document and position), or there is none in the whole text.
 */
export async function collectResiduals(
  options: CollectOptions,
): Promise<ResidualManifest> {
  const { reader, config, store, onProgress, signal } = options;
  const output = new ResidualOutput(store, options.before ?? begun(options));
  if (output.manifest.done) return output.manifest;
  if (!options.before) await writeManifest(store, output.manifest);
  const shards = new OpenShard(options, output);
  const { d_model } = reader.model.config;
  let nTokensRead = 0;
  let last: Pass | undefined;
  const take = async ({ contexts, rows }: Pass): Promise<void> => {
    const bits = await rows;
    nTokensRead += bits.length / d_model;
    await shards.add(contexts, bits);
    onProgress?.({ ...shards.progress, nTokensRead });
  };
  try {
    const start = output.manifest.shards.at(-1)?.next ?? TEXT_START;
    const passes = contextPasses(options.read, reader.model, config, start);
    let pass = await passes.next();
    while (!pass.done && !shards.isFull) {
      signal?.throwIfAborted();
      const contexts = pass.value;
      reader.submit(contexts.map(({ ids }) => ids));
      if (last) await take(last);
      pass = await passes.next();
      const rows = reader.rows();
      // Told where it is awaited; nobody waits for it when the run is stopped.
      rows.catch(() => {});
      last = { contexts, rows };
    }
    if (last && !shards.isFull) await take(last);
    await shards.close();
  } finally {
    // A shard that is being written is complete: it stays.
    await output.settled();
  }
  const isEmpty = output.manifest.n_tokens === 0;
  if (isEmpty && !options.shard) {
    // Of a refused text nothing is to stay.
    await store.remove(manifestFile(undefined));
    throw new RangeError(
      `Cannot collect from "${config.text}": expected contexts of more than ${config.skipFirst} tokens: got none`,
    );
  }
  return await output.finish();
}

/** The manifest of a collection that begins. */
function begun(
  { reader, config, fingerprint, shard }: CollectOptions,
): ResidualManifest {
  const { model, hookPoint } = reader;
  const { d_model, n_layers } = model.config;
  const { modelName, revision, text, shuffle, layout, ...passes } = config;
  const { contextLength, pack, separator, skipFirst, skipTokens } = passes;
  return {
    kind: "residuals",
    fingerprint,
    formatVersion: 2,
    model: {
      name: modelName,
      ...(revision !== undefined && { revision }),
      fingerprint: dataFingerprint(model),
      d_model,
      n_layers,
    },
    hookPoint,
    layout,
    dtype: "bf16",
    ...{ contextLength, pack, separator, skipFirst },
    skipTokens: [...skipTokens].sort((a, b) => a - b),
    text,
    ...(shuffle !== undefined && { shuffle }),
    ...(shard && { shard }),
    shards: [],
    n_tokens: 0,
    n_documents: 0,
    done: false,
  };
}

/** The shard that is being filled. */
class OpenShard {
  readonly #config: CollectConfig;
  readonly #header: NewResidualHeader;
  readonly #store: Store;
  readonly #output: ResidualOutput;
  #writer: ResidualShardWriter | undefined;
  /** Where the text goes on after what was added. */
  #next: TextPosition;
  #nVectors: number;
  #nDocuments: number;
  /** Documents that begin in this shard. */
  #nOfShard = 0;

  constructor(
    { reader: { model, hookPoint }, config, store }: CollectOptions,
    output: ResidualOutput,
  ) {
    const { manifest } = output;
    this.#config = config;
    this.#store = store;
    this.#output = output;
    this.#header = {
      modelName: config.modelName,
      modelFingerprint: dataFingerprint(model),
      revision: config.revision,
      hookPoint,
      dtype: "bf16",
      d_model: model.config.d_model,
    };
    this.#next = manifest.shards.at(-1)?.next ?? TEXT_START;
    this.#nVectors = manifest.n_tokens;
    this.#nDocuments = manifest.n_documents;
  }

  /** What is in shards and in memory. */
  get progress(): Omit<CollectProgress, "nTokensRead"> {
    return { nDocuments: this.#nDocuments, nVectors: this.#nVectors };
  }

  /** Whether there are as many vectors as are wanted. */
  get isFull(): boolean {
    return this.#room <= 0;
  }

  get #room(): number {
    return (this.#config.maxVectors ?? Infinity) - this.#nVectors;
  }

  /** Takes the vectors of a pass, as far as they are wanted; closes the shard if it is large enough now. */
  async add(
    contexts: readonly TokenContext[],
    rows: Uint16Array<ArrayBuffer>,
  ): Promise<void> {
    const { d_model } = this.#header;
    const batch = labeledRows(contexts, rows, { d_model, most: this.#room });
    const nBegun = countBegun(contexts, this.#next);
    this.#next = contexts.at(-1)!.next;
    this.#nDocuments += nBegun;
    this.#nOfShard += nBegun;
    if (batch.n_rows === 0) return;
    const { layout } = this.#config;
    this.#writer ??= new ResidualShardWriter(this.#header, { layout });
    this.#writer.add(batch);
    this.#nVectors += batch.n_rows;
    if (this.#writer.n_rows >= this.#config.shardRows) await this.close();
  }

  /** Begins to write what was added, if anything was. */
  async close(): Promise<void> {
    const writer = this.#writer;
    if (!writer) return;
    const n_documents = this.#nOfShard;
    this.#writer = undefined;
    this.#nOfShard = 0;
    await this.#output.add({
      n_rows: writer.n_rows,
      n_documents,
      next: this.#next,
      write: (file) => this.#store.write(file, writer.finish()),
    });
  }
}

/** Documents whose first token is in these contexts, which go on at a position. */
function countBegun(
  contexts: readonly TokenContext[],
  start: TextPosition,
): number {
  let last = start.token > 0 ? start.document : start.document - 1;
  let n = 0;
  for (const { documents } of contexts) {
    for (const document of documents) {
      if (document > last) n++;
      last = Math.max(last, document);
    }
  }
  return n;
}
