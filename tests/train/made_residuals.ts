/**
 * Residual folders that tests make: each vector says which shard and row it is.
 * @module
 */
import { createHash } from "node:crypto";
import { join } from "node:path";
import { f32ToBf16 } from "../../core/dtype.ts";
import {
  manifestFile,
  type ResidualManifest,
  shardFile,
} from "../../core/residual_manifest.ts";
import { ResidualShardWriter } from "../../core/residuals.ts";
import { randomNormal } from "../assert_close.ts";
import { joined } from "../joined.ts";

/** Elements of a vector. */
export const MADE_D = 3;

/** What a folder shall hold. */
export interface MadeFolder {
  /** Rows of each shard. */
  readonly shards: readonly number[];
  /** Size of vectors; {@link MADE_D} when absent. */
  readonly d_model?: number;
  /** What its manifest says otherwise. */
  readonly manifest?: Partial<ResidualManifest>;
  /** Bits of a shard's rows, finite; random when absent. */
  readonly rows?: (shard: number, n_rows: number) => Uint16Array<ArrayBuffer>;
}

/** Bits of the rows that a shard holds unless others are asked for. */
export function madeRows(
  shard: number,
  n_rows: number,
  d_model: number = MADE_D,
): Uint16Array<ArrayBuffer> {
  return f32ToBf16(randomNormal(n_rows * d_model, shard + 1));
}

/** The files of a folder, by name. Token ids count from 0 in each shard; documents have ten rows. */
export function madeFolder(
  { shards: sizes, d_model = MADE_D, rows, manifest: manifestOf = {} }:
    MadeFolder,
): Record<string, Uint8Array<ArrayBuffer>> {
  const header = {
    modelName: "tiny",
    modelFingerprint: "abc",
    hookPoint: "resid_post[3]",
    dtype: "bf16",
    d_model,
  } as const;
  const files: Record<string, Uint8Array<ArrayBuffer>> = {};
  const shards: ResidualManifest["shards"][number][] = [];
  for (const [s, n_rows] of sizes.entries()) {
    const writer = new ResidualShardWriter(header, {
      layout: manifestOf.layout ?? "binary",
    });
    const counting = Int32Array.from({ length: n_rows }, (_, i) => i);
    writer.add({
      n_rows,
      d_model,
      rows: rows?.(s, n_rows) ?? madeRows(s, n_rows, d_model),
      token_ids: counting,
      positions: counting.map((i) => i % 10),
      documents: counting.map((i) => Math.floor(i / 10)),
    });
    const { shard: task } = manifestOf;
    const file = task ? shardFile(task, s) : `shard-${s}.parquet`;
    const bytes = joined(writer.finish());
    files[file] = bytes;
    const sha256 = createHash("sha256").update(bytes).digest("hex");
    shards.push({ file, n_rows, bytes: bytes.length, sha256 });
  }
  const manifest: ResidualManifest = {
    kind: "residuals",
    fingerprint: "f",
    formatVersion: 2,
    model: { name: "tiny", fingerprint: "abc", d_model, n_layers: 8 },
    hookPoint: "resid_post[3]",
    layout: "binary",
    dtype: "bf16",
    contextLength: 256,
    pack: false,
    separator: true,
    skipFirst: 0,
    skipTokens: [],
    text: "storybook:1",
    shards,
    n_tokens: sizes.reduce((sum, n) => sum + n, 0),
    n_documents: 2,
    done: true,
    ...manifestOf,
  };
  files[manifestFile(manifest.shard)] = new TextEncoder().encode(
    JSON.stringify(manifest),
  );
  return files;
}

/** Overwrites the first element of a row where its shard stores it. */
export function damageRow(
  bytes: Uint8Array,
  row: Uint16Array<ArrayBuffer>,
  bits: number,
): void {
  const pattern = new Uint8Array(row.slice().buffer);
  const at = bytes.findIndex((_, i) =>
    pattern.every((byte, k) => bytes[i + k] === byte)
  );
  bytes.set([bits & 0xff, bits >> 8], at);
}

/** Writes files into a new folder that goes with the caller's stack; gives its path. */
export async function writtenFolder(
  owned: AsyncDisposableStack,
  files: Readonly<Record<string, Uint8Array>>,
): Promise<string> {
  const path = await Deno.makeTempDir();
  owned.defer(() => Deno.remove(path, { recursive: true }));
  for (const [file, bytes] of Object.entries(files)) {
    await Deno.writeFile(join(path, file), bytes);
  }
  return path;
}
