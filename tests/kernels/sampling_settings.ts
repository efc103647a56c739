/**
 * Settings of sampling as the kernels take them.
 * @module
 */
import type { RowSettings } from "../reference/sampling_reference.ts";
import { type HostTensor, words } from "./run_kernel.ts";

/** What a row without a distribution gives. */
export const NO_TOKEN = 0xffffffff;

/** Plain softmax. */
export const all: RowSettings = { temperature: 1, top_p: 1, top_k: 0, seed: 0 };

/** The `settings` tensor. */
export function pack(rows: readonly RowSettings[]): HostTensor {
  const values = new Uint32Array(4 * rows.length);
  const asFloats = new Float32Array(values.buffer);
  for (const [r, { temperature, top_p, top_k, seed }] of rows.entries()) {
    asFloats.set([temperature, top_p], 4 * r);
    values.set([top_k, seed], 4 * r + 2);
  }
  return words([rows.length, 4], values);
}
