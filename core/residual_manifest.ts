/**
 * Manifests of residual folders: what was collected, from what, in which files,
 * and where it goes on.
 * @module
 */
import { z } from "zod";
import { checkJson } from "./check_json.ts";
import { type HookPoint, isHookPoint } from "./hook_point.ts";
import type { ResidualLayout } from "./residual_pages.ts";
import type { TextPosition } from "./token_contexts.ts";
import type { TextShard } from "./text_order.ts";

/** A shard as a manifest lists it. */
export interface ShardEntry {
  /** File name in the folder. */
  readonly file: string;
  /** Number of rows. */
  readonly n_rows: number;
  /** Length of the file. */
  readonly bytes: number;
  /** SHA-256 of the file, in hexadecimal; absent in folders that have no manifest. */
  readonly sha256?: string;
  /** Where collecting goes on after it; absent where shards were joined. */
  readonly next?: TextPosition;
}

/** The model that was read. */
export interface CollectedModel {
  /** Its name, for people. */
  readonly name: string;
  /** Commit of its repository, where that is known. */
  readonly revision?: string;
  /** Of its weights, and how they were quantized: see `dataFingerprint`. */
  readonly fingerprint: string;
  readonly d_model: number;
  readonly n_layers: number;
}

/** How a text became contexts. */
export interface ContextFacts {
  /** Most tokens that the model read at once. */
  readonly contextLength: number;
  /** Whether documents were joined until a context was full; else each has contexts of its own. */
  readonly pack: boolean;
  /** Whether an end-of-text token stands between documents. */
  readonly separator: boolean;
  /** Tokens at the start of each context that were left out. */
  readonly skipFirst: number;
  /** Ids of the tokens that were left out wherever they stand. */
  readonly skipTokens: readonly number[];
}

/** What a residual folder holds, or what one of several tasks wrote into it. */
export interface ResidualManifest extends ContextFacts {
  /** Tells the folder from those of other stages. */
  readonly kind: "residuals";
  /** Fingerprint of the configuration that collected it, the same for all tasks of one collection. */
  readonly fingerprint: string;
  /** Version of this form. */
  readonly formatVersion: 2;
  readonly model: CollectedModel;
  /** Where it was read. */
  readonly hookPoint: HookPoint;
  readonly layout: ResidualLayout;
  /** Element type of the rows. */
  readonly dtype: "bf16";
  /** The text that was read, as `readDocuments` takes it. */
  readonly text: string;
  /** Seed of the order of its documents; absent where they kept theirs. */
  readonly shuffle?: number;
  /** The task that collected it; absent where one did all, and when tasks are merged. */
  readonly shard?: TextShard;
  /** Complete shards, in order. */
  readonly shards: readonly ShardEntry[];
  /** Vectors in all shards: one a token. */
  readonly n_tokens: number;
  /** Documents that they are of. */
  readonly n_documents: number;
  /** Whether the collection has come to its end. */
  readonly done: boolean;
}

const count = z.int().min(0);

const Entry = z.object({
  // A path would reach other files of the machine.
  file: z.string().regex(/^[^/\\:\0]+\.parquet$/, "expected a parquet file"),
  n_rows: z.int().min(1),
  bytes: z.int().min(1),
  sha256: z.string().regex(/^[0-9a-f]{64}$/, "expected 64 hex digits"),
  next: z.object({ document: count, token: count }).exactOptional(),
});

const Manifest: z.ZodType<ResidualManifest> = z.object({
  kind: z.literal("residuals"),
  fingerprint: z.string(),
  formatVersion: z.literal(2),
  model: z.object({
    name: z.string(),
    revision: z.string().exactOptional(),
    fingerprint: z.string(),
    d_model: z.int().min(1),
    n_layers: z.int().min(1),
  }),
  hookPoint: z.string().refine(isHookPoint, "expected a hook point"),
  layout: z.enum(["binary", "list"]),
  dtype: z.literal("bf16"),
  contextLength: z.int().min(1),
  pack: z.boolean(),
  separator: z.boolean(),
  skipFirst: count,
  skipTokens: z.array(count),
  text: z.string(),
  shuffle: count.exactOptional(),
  shard: z.object({ index: count, count: z.int().min(1) }).refine(
    ({ index, count }) => index < count,
    "expected an index below the count",
  ).exactOptional(),
  shards: z.array(Entry),
  n_tokens: count,
  n_documents: count,
  done: z.boolean(),
});

/** What version 1 did not say, because there was no choice yet. */
const OF_VERSION_1 = {
  formatVersion: 2,
  layout: "binary",
  dtype: "bf16",
  pack: false,
  separator: true,
  skipTokens: [],
} as const;

/**
 * Checks the manifest of a residual folder; one of version 1 is read too.
 * @param file What errors call it.
 * @throws {SyntaxError} If it is none: names the file and the field.
 */
export function parseResidualManifest(
  json: unknown,
  file: string,
): ResidualManifest {
  const manifest = checkJson(Manifest, ofThisVersion(json), file);
  const refuse = (field: string, expected: string, got: unknown): SyntaxError =>
    new SyntaxError(
      `Cannot read "${file}": field "${field}": expected ${expected}: got ${got}`,
    );
  const n_rows = manifest.shards.reduce((sum, shard) => sum + shard.n_rows, 0);
  if (n_rows !== manifest.n_tokens) {
    throw refuse(
      "n_tokens",
      `${n_rows}, the rows of its shards`,
      manifest.n_tokens,
    );
  }
  const seen = new Set<string>();
  for (const [i, { file: name }] of manifest.shards.entries()) {
    if (seen.has(name)) {
      throw refuse(`shards.${i}.file`, "each file once", `"${name}" again`);
    }
    seen.add(name);
  }
  return manifest;
}

function ofThisVersion(json: unknown): unknown {
  const isFirst = typeof json === "object" && json !== null &&
    "formatVersion" in json && json.formatVersion === 1;
  return isFirst ? { ...json, ...OF_VERSION_1 } : json;
}

/** Bytes of a manifest file. */
export function manifestText(manifest: ResidualManifest): string {
  return `${JSON.stringify(manifest, null, 2)}\n`;
}

/** Name of the manifest of a whole folder. */
export const MANIFEST_FILE = "manifest.json";

/** What the files of a task are called by: `003-of-064`, or `all` where one does all. */
export function taskName(shard: TextShard | undefined): string {
  if (!shard) return "all";
  const digits = (n: number): string => String(n).padStart(3, "0");
  return `${digits(shard.index)}-of-${digits(shard.count)}`;
}

/** Name of the manifest that a task writes. */
export function manifestFile(shard: TextShard | undefined): string {
  return shard ? `manifest_${taskName(shard)}.json` : MANIFEST_FILE;
}

/** Name of the n-th file that a task writes, from 0. */
export function shardFile(shard: TextShard | undefined, n: number): string {
  const task = shard ? `${taskName(shard)}_` : "";
  return `shard_${task}${String(n).padStart(5, "0")}.parquet`;
}

/** The task that wrote a manifest or a shard of this name; undefined for all other names. */
export function taskOfFile(file: string): TextShard | undefined {
  const [, index, count] =
    /^(?:manifest_(\d{3,})-of-(\d{3,})\.json|shard_(\d{3,})-of-(\d{3,})_\d{5,}\.parquet)$/
      .exec(file)?.filter((part) => part !== undefined) ?? [];
  if (index === undefined || count === undefined) return undefined;
  const task = { index: Number(index), count: Number(count) };
  return task.index < task.count ? task : undefined;
}
