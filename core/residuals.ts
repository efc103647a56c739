/**
 * Residual folders: the shards of one collection with a manifest that says
 * what they are, or those that another tool left without one.
 * @module
 */
import type { HookPoint } from "./hook_point.ts";
import {
  MANIFEST_FILE,
  parseResidualManifest,
  type ShardEntry,
  taskOfFile,
} from "./residual_manifest.ts";
import { type ResidualRows, ResidualShard } from "./residual_shard.ts";
import { type Folder, readJson } from "./source.ts";

export {
  parseResidualManifest,
  type ResidualManifest,
  type ShardEntry,
} from "./residual_manifest.ts";
export {
  type ResidualHeader,
  type ResidualRows,
  ResidualShard,
} from "./residual_shard.ts";
export {
  type LabeledResidualRows,
  type NewResidualHeader,
  ResidualShardWriter,
} from "./residual_writer.ts";

/** What is known of a folder; a `ResidualManifest` says all of it, files of other tools little beside the vectors. */
export interface ResidualFacts {
  /** Fingerprint of the configuration that collected it. */
  readonly fingerprint?: string;
  /** The model that was read. */
  readonly model: {
    readonly d_model: number;
    readonly name?: string;
    /** Of its weights, and how they were quantized. */
    readonly fingerprint?: string;
  };
  /** Where it was read. */
  readonly hookPoint?: HookPoint;
  /** Most tokens that the model read at once. */
  readonly contextLength?: number;
  /** The text that was read. */
  readonly text?: string;
  /** The shards, in order. */
  readonly shards: readonly ShardEntry[];
  /** Vectors in all shards. */
  readonly n_tokens: number;
  /** Documents that they are of. */
  readonly n_documents?: number;
  /** Whether the collection has come to its end. */
  readonly done: boolean;
}

/** What a person says of files that do not say it themselves. */
export interface ToldFacts {
  /** Name of the model that was read. */
  readonly modelName?: string;
  /** Where it was read. */
  readonly hookPoint?: HookPoint;
}

/** An open residual folder. */
export class ResidualFolder {
  /** What errors call it. */
  readonly name: string;
  /** What it holds. */
  readonly manifest: ResidualFacts;
  readonly #folder: Folder;

  private constructor(folder: Folder, manifest: ResidualFacts) {
    this.name = folder.name;
    this.manifest = manifest;
    this.#folder = folder;
  }

  /**
   * Reads the manifest; where there is none, the footers of all parquet files.
   * @param told What the files may leave out.
   * @throws {Error} If there is neither, or tasks are not merged yet.
   * @throws {SyntaxError} If the manifest is of another kind, or a file is damaged or holds no residuals.
   * @throws {RangeError} If there is no vector yet, or the files say something else than was told.
   */
  static async open(
    folder: Folder,
    told: ToldFacts = {},
  ): Promise<ResidualFolder> {
    const manifest = await folder.has(MANIFEST_FILE)
      ? await readManifest(folder)
      : await looseShards(folder);
    if (manifest.n_tokens === 0) {
      throw new RangeError(
        `Cannot open residuals in "${folder.name}": expected vectors: got none yet: finish collecting`,
      );
    }
    return new ResidualFolder(folder, withTold(folder, manifest, told));
  }

  /**
   * Opens one shard.
   * @throws {RangeError} If there is no such shard, or it is not what the manifest says.
   */
  async shard(index: number): Promise<ResidualShard> {
    const { shards } = this.manifest;
    const entry = shards[index];
    if (!entry) {
      throw new RangeError(
        `Cannot open shard ${index} of "${this.name}": expected 0 to ${
          shards.length - 1
        }`,
      );
    }
    return await openShard(this.#folder, this.manifest, entry);
  }

  /** All vectors in the order in which they were collected, a row group at a time. */
  async *batches(): AsyncGenerator<ResidualRows> {
    for (const index of this.manifest.shards.keys()) {
      yield* (await this.shard(index)).batches();
    }
  }
}

/**
 * Opens a shard of a folder, and compares it with what is known of it.
 * @throws {RangeError} If its size, rows, d_model, hook point or model is another: names the file.
 */
export async function openShard(
  folder: Folder,
  { model, hookPoint }: Pick<ResidualFacts, "model" | "hookPoint">,
  entry: ShardEntry,
): Promise<ResidualShard> {
  const source = await folder.open(entry.file);
  const refuse = (expected: string, got: unknown): RangeError =>
    new RangeError(
      `Cannot read "${source.name}": expected ${expected} by ${
        entry.sha256 ? MANIFEST_FILE : "its neighbors"
      }: got ${got}: collect it again`,
    );
  if (source.byteLength !== entry.bytes) {
    throw refuse(`${entry.bytes} bytes`, source.byteLength);
  }
  const shard = await ResidualShard.open(source, { d_model: model.d_model });
  const { header } = shard;
  if (shard.n_rows !== entry.n_rows) {
    throw refuse(`${entry.n_rows} rows`, shard.n_rows);
  }
  if (!header && entry.sha256) {
    throw refuse(`d_model ${model.d_model} in its header`, "none");
  }
  if (!header) return shard;
  if (header.d_model !== model.d_model) {
    throw refuse(`d_model ${model.d_model}`, header.d_model);
  }
  if (hookPoint !== undefined && header.hookPoint !== hookPoint) {
    throw refuse(hookPoint, header.hookPoint);
  }
  if (
    model.fingerprint !== undefined &&
    header.modelFingerprint !== model.fingerprint
  ) {
    throw refuse(
      `model ${model.name} (${model.fingerprint})`,
      `${header.modelName} (${header.modelFingerprint})`,
    );
  }
  return shard;
}

async function readManifest(folder: Folder): Promise<ResidualFacts> {
  const source = await folder.open(MANIFEST_FILE);
  return parseResidualManifest(await readJson(source), source.name);
}

/** Numbers in names count as numbers: rank0_chunk2 before rank0_chunk10. */
const BY_NUMBER = new Intl.Collator("en", { numeric: true });

/** What the parquet files of a folder without a manifest say of themselves. */
async function looseShards(folder: Folder): Promise<ResidualFacts> {
  const names = await folder.list();
  const refuse = (expected: string, got: string, fix: string): Error =>
    new Error(
      `Cannot open residuals in "${folder.name}": expected ${expected}: got ${got}: ${fix}`,
    );
  if (names.some((name) => taskOfFile(name))) {
    throw refuse(
      MANIFEST_FILE,
      "the files of tasks that are not merged",
      "run ./ocs data merge on it when all are done",
    );
  }
  const files = names.filter((name) => name.endsWith(".parquet"))
    .sort(BY_NUMBER.compare);
  if (files.length === 0) {
    throw refuse(
      `${MANIFEST_FILE} or parquet files`,
      "neither",
      "collect them first",
    );
  }
  const shards: ShardEntry[] = [];
  let first: ResidualShard | undefined;
  for (const file of files) {
    const source = await folder.open(file);
    const shard = await ResidualShard.open(source);
    const { n_rows } = shard;
    if (n_rows === 0) continue;
    first ??= shard;
    shards.push({ file, n_rows, bytes: source.byteLength });
  }
  const { header } = first ?? {};
  return {
    model: {
      d_model: header?.d_model ?? await widthOf(first),
      ...(header && {
        name: header.modelName,
        fingerprint: header.modelFingerprint,
      }),
    },
    ...(header && { hookPoint: header.hookPoint }),
    shards,
    n_tokens: shards.reduce((sum, { n_rows }) => sum + n_rows, 0),
    done: true,
  };
}

/** Elements of a row of a shard that does not say it; whether they are finite is up to who reads them. */
async function widthOf(shard: ResidualShard | undefined): Promise<number> {
  const group = shard?.rowGroups[0];
  if (!shard || !group) return 0;
  return (await shard.rows(0, { keepBad: true })).length / group.n_rows;
}

/** Adds what was told to what the files say. */
function withTold(
  folder: Folder,
  manifest: ResidualFacts,
  told: ToldFacts,
): ResidualFacts {
  const { model, hookPoint } = manifest;
  const pairs = [
    [hookPoint, told.hookPoint, "--hook"],
    [model.name, told.modelName, "--model-name"],
  ] as const;
  for (const [said, given, flag] of pairs) {
    if (said === undefined || given === undefined || said === given) continue;
    throw new RangeError(
      `Cannot open residuals in "${folder.name}": expected ${said}, as its files say: got ${given}: leave ${flag} out`,
    );
  }
  const name = model.name ?? told.modelName;
  const hook = hookPoint ?? told.hookPoint;
  return {
    ...manifest,
    model: { ...model, ...(name !== undefined && { name }) },
    ...(hook !== undefined && { hookPoint: hook }),
  };
}
