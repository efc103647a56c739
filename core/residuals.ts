/**
 * Residual folders: the shards of one collection with a manifest that says
 * what they are, so that collecting resumes and training knows what it reads.
 * @module
 */
import { z } from "zod";
import { checkJson } from "./check_json.ts";
import { type HookPoint, isHookPoint } from "./hook_point.ts";
import { type ResidualRows, ResidualShard } from "./residual_shard.ts";
import type { ShardEntry } from "./residual_writer.ts";
import { type Folder, readJson } from "./source.ts";

export {
  type ResidualHeader,
  type ResidualRows,
  ResidualShard,
} from "./residual_shard.ts";
export {
  type LabeledResidualRows,
  type NewResidualHeader,
  ResidualShardWriter,
  type ShardEntry,
} from "./residual_writer.ts";

/** What a residual folder holds. */
export interface ResidualManifest {
  /** Tells the folder from those of other stages. */
  readonly kind: "residuals";
  /** Fingerprint of the configuration that collected it. */
  readonly fingerprint: string;
  /** Version of this form. */
  readonly formatVersion: 1;
  /** The model that was read. */
  readonly model: {
    readonly name: string;
    /** Of its weights, and how they were quantized: see `dataFingerprint`. */
    readonly fingerprint: string;
    readonly d_model: number;
    readonly n_layers: number;
  };
  /** Where it was read. */
  readonly hookPoint: HookPoint;
  /** Documents were cut at this many tokens. */
  readonly contextLength: number;
  /** The text that was read, as `readDocuments` takes it. */
  readonly text: string;
  /** Tokens at the start of each document that were left out. */
  readonly skipFirst: number;
  /** Complete shards, in order. */
  readonly shards: readonly ShardEntry[];
  /** Vectors in all shards: one a token. */
  readonly n_tokens: number;
  /** Documents in all shards. */
  readonly n_documents: number;
  /** Whether the collection has come to its end. */
  readonly done: boolean;
}

const count = z.int().min(0);

const Manifest: z.ZodType<ResidualManifest> = z.object({
  kind: z.literal("residuals"),
  fingerprint: z.string(),
  formatVersion: z.literal(1),
  model: z.object({
    name: z.string(),
    fingerprint: z.string(),
    d_model: z.int().min(1),
    n_layers: z.int().min(1),
  }),
  hookPoint: z.string().refine(isHookPoint, "expected a hook point"),
  contextLength: z.int().min(1),
  text: z.string(),
  skipFirst: count,
  shards: z.array(z.object({
    // A path would reach other files of the machine.
    file: z.string().regex(/^[^/\\:\0]+\.parquet$/, "expected a parquet file"),
    n_rows: z.int().min(1),
    bytes: z.int().min(1),
    sha256: z.string().regex(/^[0-9a-f]{64}$/, "expected 64 hex digits"),
  })),
  n_tokens: count,
  n_documents: count,
  done: z.boolean(),
});

/**
 * Checks the manifest of a residual folder.
 * @param file What errors call it.
 * @throws {SyntaxError} If it is none: names the file and the field.
 */
export function parseResidualManifest(
  json: unknown,
  file: string,
): ResidualManifest {
  const manifest = checkJson(Manifest, json, file);
  const n_rows = manifest.shards.reduce((sum, shard) => sum + shard.n_rows, 0);
  if (n_rows === manifest.n_tokens) return manifest;
  throw new SyntaxError(
    `Cannot read "${file}": field "n_tokens": expected ${n_rows}, the rows of its shards: got ${manifest.n_tokens}`,
  );
}

/** An open residual folder. */
export class ResidualFolder {
  /** What errors call it. */
  readonly name: string;
  /** What it holds. */
  readonly manifest: ResidualManifest;
  readonly #folder: Folder;

  private constructor(folder: Folder, manifest: ResidualManifest) {
    this.name = folder.name;
    this.manifest = manifest;
    this.#folder = folder;
  }

  /**
   * Reads the manifest.
   * @throws {Error} If there is none.
   * @throws {SyntaxError} If it is of another kind, or damaged.
   * @throws {RangeError} If there is no vector yet.
   */
  static async open(folder: Folder): Promise<ResidualFolder> {
    if (!await folder.has("manifest.json")) {
      throw new Error(
        `Cannot open residuals in "${folder.name}": expected manifest.json: got none: collect them first`,
      );
    }
    const source = await folder.open("manifest.json");
    const manifest = parseResidualManifest(await readJson(source), source.name);
    if (manifest.n_tokens === 0) {
      throw new RangeError(
        `Cannot open residuals in "${folder.name}": expected vectors: got none yet: finish collecting`,
      );
    }
    return new ResidualFolder(folder, manifest);
  }

  /**
   * Opens one shard.
   * @throws {RangeError} If there is no such shard, or it is not what the manifest says.
   */
  async shard(index: number): Promise<ResidualShard> {
    const { shards, model, hookPoint } = this.manifest;
    const entry = shards[index];
    if (!entry) {
      throw new RangeError(
        `Cannot open shard ${index} of "${this.name}": expected 0 to ${
          shards.length - 1
        }`,
      );
    }
    const source = await this.#folder.open(entry.file);
    const refuse = (expected: string, got: unknown): RangeError =>
      new RangeError(
        `Cannot read "${source.name}": expected ${expected} by manifest.json: got ${got}: collect it again`,
      );
    if (source.byteLength !== entry.bytes) {
      throw refuse(`${entry.bytes} bytes`, source.byteLength);
    }
    const shard = await ResidualShard.open(source);
    const { header } = shard;
    if (shard.n_rows !== entry.n_rows) {
      throw refuse(`${entry.n_rows} rows`, shard.n_rows);
    }
    if (header?.d_model !== model.d_model) {
      throw refuse(`d_model ${model.d_model}`, header?.d_model);
    }
    if (header.hookPoint !== hookPoint) {
      throw refuse(hookPoint, header.hookPoint);
    }
    if (header.modelFingerprint !== model.fingerprint) {
      throw refuse(
        `model ${model.name} (${model.fingerprint})`,
        `${header.modelName} (${header.modelFingerprint})`,
      );
    }
    return shard;
  }

  /** All vectors in the order in which they were collected, a row group at a time. */
  async *batches(): AsyncGenerator<ResidualRows> {
    for (const index of this.manifest.shards.keys()) {
      yield* (await this.shard(index)).batches();
    }
  }
}
