/**
 * Settings of sampling as the kernels take them.
 * @module
 */
import type { RowSettings } from "../reference/sampling_reference.ts";
import { type HostTensor, words } from "./run_kernel.ts";

/** What a row without a distribution gives. */
export const NO_TOKEN = 0xffffffff;

/** Plain softmax. */
export const all: RowSettings = {
  temperature: 1,
  top_p: 1,
  min_p: 0,
  top_k: 0,
  seed: 0,
  step: 0,
};

/** The `settings` tensor. */
export function pack(rows: readonly RowSettings[]): HostTensor {
  const values = new Uint32Array(8 * rows.length);
  const asFloats = new Float32Array(values.buffer);
  for (const [r, row] of rows.entries()) {
    asFloats.set([row.temperature, row.top_p, row.min_p], 8 * r);
    values.set([row.top_k, row.seed, row.step], 8 * r + 3);
  }
  return words([rows.length, 8], values);
}
