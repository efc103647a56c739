import type { SparseActivations } from "../../steer/activations.ts";

/** Rows of the activations of all features, made sparse. */
export function sparse(
  rows: readonly (readonly number[])[],
): SparseActivations {
  const offsets = [0];
  const features: number[] = [];
  const values: number[] = [];
  for (const row of rows) {
    for (const [feature, value] of row.entries()) {
      if (value === 0) continue;
      features.push(feature);
      values.push(value);
    }
    offsets.push(values.length);
  }
  return {
    offsets: Uint32Array.from(offsets),
    features: Uint32Array.from(features),
    values: Float32Array.from(values),
  };
}
