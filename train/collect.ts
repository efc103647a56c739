/**
 * Collects residual streams: documents → tokens → forward up to the hook's block
 * → bf16 rows → parquet shards, each with its tokens, and a manifest.
 * @module
 */
import { createHash } from "node:crypto";
import type { Manifest } from "../core/files.ts";
import {
  type LabeledResidualRows,
  type NewResidualHeader,
  type ResidualManifest,
  ResidualShardWriter,
  type ShardEntry,
} from "../core/residuals.ts";
import { dataFingerprint } from "../core/model_folder.ts";
import type { WriteFile } from "../core/sae_file.ts";
import type { ReadCorpus } from "../core/text.ts";
import type { TokenContext } from "../core/token_contexts.ts";
import { contextPasses } from "./context_passes.ts";
import type { ResidualReader } from "./residual_reader.ts";

/** What decides the vectors of a collection, beside model and hook point. */
export interface CollectConfig {
  /** Name of the model, for people. */
  readonly modelName: string;
  /** The text, as `readDocuments` takes it. */
  readonly text: string;
  /** Documents are cut at this many tokens. */
  readonly contextLength: number;
  /** Tokens at the start of each document that are left out. */
  readonly skipFirst: number;
  /** A shard is closed by the first pass that brings it to this many vectors. */
  readonly shardRows: number;
  /** A pass ends before the document that would bring it past this many tokens. */
  readonly tokensPerPass: number;
  /** Most documents; all when absent. */
  readonly maxDocuments?: number;
  /** Most vectors; all when absent. */
  readonly maxVectors?: number;
}

/** How far a collection is. */
export interface CollectProgress {
  /** Documents whose vectors are in shards or in memory. */
  readonly nDocuments: number;
  /** Their vectors. */
  readonly nVectors: number;
  /** Tokens that went through the model in this run, those that are left out included. */
  readonly nTokensRead: number;
}

/** Options of {@link collectResiduals}. */
export interface CollectOptions {
  readonly reader: ResidualReader;
  readonly config: CollectConfig;
  /** Reads the text. */
  readonly read: ReadCorpus;
  /** The manifest that the output folder has: the first one of this run, or one of it when resumed. */
  readonly manifest: Manifest | ResidualManifest;
  /** Writes a file of the output folder. */
  readonly write: WriteFile;
  /** Called after every pass. */
  readonly onProgress?: (progress: CollectProgress) => void;
  /** Stops between two passes; complete shards stay, and the run can be resumed. */
  readonly signal?: AbortSignal;
}

/**
 * Collects what a text brings at a hook point, from where the manifest stands.
 * While the GPU works on a pass, the host packs and writes the one before and
 * tokenizes the next. Shards end where passes end, so that a run that was
 * interrupted and resumed writes the same bytes as one that was not.
 * @returns The manifest of the complete collection.
 * @throws {RangeError} If a vector is not finite (names document and position), or there is none.
 */
export async function collectResiduals(
  options: CollectOptions,
): Promise<ResidualManifest> {
  const { reader, onProgress, signal } = options;
  const shards = new ShardOutput(options);
  if (shards.manifest.done) return shards.manifest;
  const passes = contextPasses(
    options.read,
    reader.model,
    {
      ...options.config,
      pack: false,
      separator: true,
      skipTokens: new Set<number>(),
    },
    { document: shards.manifest.n_documents, token: 0 },
  );
  let nTokensRead = 0;
  let ready: Pass | undefined;
  let pass = await passes.next();
  while (!pass.done && !shards.isFull) {
    signal?.throwIfAborted();
    const contexts = pass.value;
    reader.submit(contexts.map(({ ids }) => ids));
    if (ready) await shards.add(ready);
    pass = await passes.next();
    const rows = await reader.rows();
    ready = { contexts, rows };
    nTokensRead += rows.length / reader.model.config.d_model;
    const { nDocuments, nVectors } = shards;
    onProgress?.({ nDocuments, nVectors, nTokensRead });
  }
  if (ready) await shards.add(ready);
  const manifest = await shards.finish();
  onProgress?.({
    nDocuments: manifest.n_documents,
    nVectors: manifest.n_tokens,
    nTokensRead,
  });
  return manifest;
}

/** Contexts with the bits of bf16 `[T, d_model]` of all their tokens. */
interface Pass {
  readonly contexts: readonly TokenContext[];
  readonly rows: Uint16Array<ArrayBuffer>;
}

/** The output folder: a shard in memory, complete ones on disk, and the manifest that lists them. */
class ShardOutput {
  readonly #config: CollectConfig;
  readonly #header: NewResidualHeader;
  readonly #write: WriteFile;
  #manifest: ResidualManifest;
  #shard: ResidualShardWriter | undefined;
  #nDocuments: number;
  #nVectors: number;

  constructor({ reader, config, manifest, write }: CollectOptions) {
    const { model, hookPoint } = reader;
    const { d_model, n_layers } = model.config;
    const { modelName, text, contextLength, skipFirst } = config;
    this.#config = config;
    this.#write = write;
    this.#header = {
      modelName,
      modelFingerprint: dataFingerprint(model),
      hookPoint,
      dtype: "bf16",
      d_model,
    };
    this.#manifest = isStarted(manifest) ? manifest : {
      kind: "residuals",
      fingerprint: manifest.fingerprint,
      formatVersion: 1,
      model: {
        name: modelName,
        fingerprint: dataFingerprint(model),
        d_model,
        n_layers,
      },
      hookPoint,
      contextLength,
      text,
      skipFirst,
      shards: [],
      n_tokens: 0,
      n_documents: 0,
      done: false,
    };
    this.#nDocuments = this.#manifest.n_documents;
    this.#nVectors = this.#manifest.n_tokens;
  }

  /** The manifest as it is on disk, or will be first. */
  get manifest(): ResidualManifest {
    return this.#manifest;
  }

  /** Documents on disk and in memory. */
  get nDocuments(): number {
    return this.#nDocuments;
  }

  /** Vectors on disk and in memory. */
  get nVectors(): number {
    return this.#nVectors;
  }

  /** Whether there are as many vectors as are wanted. */
  get isFull(): boolean {
    return this.#room === 0;
  }

  get #room(): number {
    return (this.#config.maxVectors ?? Infinity) - this.#nVectors;
  }

  /** Takes the vectors of a pass, as far as they are wanted; writes the shard if it is large enough now. */
  async add(pass: Pass): Promise<void> {
    if (this.isFull) return;
    const { d_model } = this.#header;
    const batch = labeledRows(pass, d_model, this.#room);
    this.#shard ??= new ResidualShardWriter(this.#header);
    this.#shard.add(batch);
    this.#nVectors += batch.n_rows;
    this.#nDocuments += pass.contexts.length;
    if (this.#shard.n_rows >= this.#config.shardRows) {
      await this.#close({ done: false });
    }
  }

  /** Writes what is left. */
  async finish(): Promise<ResidualManifest> {
    if (this.#nVectors === 0) {
      throw new RangeError(
        `Cannot collect from "${this.#config.text}": expected documents of more than ${this.#config.skipFirst} tokens: got none`,
      );
    }
    await this.#close({ done: true });
    return this.#manifest;
  }

  /** Writes the shard in memory, if any, then the manifest that lists it. */
  async #close({ done }: { done: boolean }): Promise<void> {
    const shards: ShardEntry[] = [...this.#manifest.shards];
    if (this.#shard && this.#shard.n_rows > 0) {
      const file = `shard_${String(shards.length).padStart(5, "0")}.parquet`;
      const chunks = [...this.#shard.finish()];
      const sha256 = createHash("sha256");
      for (const chunk of chunks) sha256.update(chunk);
      await this.#write(file, ReadableStream.from(chunks));
      shards.push({
        file,
        n_rows: this.#shard.n_rows,
        bytes: chunks.reduce((sum, { length }) => sum + length, 0),
        sha256: sha256.digest("hex"),
      });
    }
    this.#shard = undefined;
    this.#manifest = {
      ...this.#manifest,
      shards,
      n_tokens: this.#nVectors,
      n_documents: this.#nDocuments,
      done,
    };
    const json = JSON.stringify(this.#manifest, null, 2);
    await this.#write("manifest.json", `${json}\n`);
  }
}

/** Whether the manifest says more than whose folder it is. */
function isStarted(
  manifest: Manifest | ResidualManifest,
): manifest is ResidualManifest {
  return "shards" in manifest;
}

/** The rows of a pass that are kept, at most `most`, with the tokens that they belong to. */
function labeledRows(
  { contexts, rows }: Pass,
  d_model: number,
  most: number,
): LabeledResidualRows {
  const places = contexts.flatMap(({ kept }, c) =>
    [...kept.keys()].filter((i) => kept[i] === 1).map((i) => [c, i] as const)
  ).slice(0, most);
  const starts: number[] = [];
  let start = 0;
  for (const { ids } of contexts) {
    starts.push(start);
    start += ids.length;
  }
  const kept = new Uint16Array(places.length * d_model);
  for (const [row, [c, i]] of places.entries()) {
    const from = (starts[c]! + i) * d_model;
    kept.set(rows.subarray(from, from + d_model), row * d_model);
  }
  const labels = (
    of: (context: TokenContext) => Uint32Array | Int32Array,
  ): Int32Array<ArrayBuffer> =>
    Int32Array.from(places, ([c, i]) => of(contexts[c]!)[i]!);
  return {
    n_rows: places.length,
    d_model,
    rows: kept,
    token_ids: labels(({ ids }) => ids),
    positions: labels(({ positions }) => positions),
    documents: labels(({ documents }) => documents),
  };
}
