/**
 * Residual shards with made rows.
 * @module
 */
import { createHash } from "node:crypto";
import { f32ToBf16 } from "../../core/dtype.ts";
import {
  type LabeledResidualRows,
  type NewResidualHeader,
  ResidualShardWriter,
} from "../../core/residuals.ts";
import { Rng } from "../../core/rng.ts";
import { joined } from "../joined.ts";

/** What a made shard says of itself. */
export function header(d_model: number): NewResidualHeader {
  return {
    modelName: "tiny",
    modelFingerprint: "abc",
    hookPoint: "resid_post[3]",
    dtype: "bf16",
    d_model,
  };
}

/** Normal values, and labels anywhere in their range. */
export function randomRows(
  seed: number,
  n_rows: number,
  d_model: number,
): LabeledResidualRows {
  const rng = new Rng(seed);
  const values = Float32Array.from(
    { length: n_rows * d_model },
    () => rng.normal(),
  );
  const label = (): Int32Array =>
    Int32Array.from({ length: n_rows }, () => rng.below(2 ** 31));
  return {
    n_rows,
    d_model,
    rows: f32ToBf16(values),
    token_ids: label(),
    positions: label(),
    documents: label(),
  };
}

/** The file of a shard, and its hash. */
export function shardOf(...batches: LabeledResidualRows[]): {
  bytes: Uint8Array;
  sha256: string;
} {
  const writer = new ResidualShardWriter(header(batches[0]!.d_model));
  for (const batch of batches) writer.add(batch);
  const bytes = joined(writer.finish());
  return { bytes, sha256: createHash("sha256").update(bytes).digest("hex") };
}
