/**
 * Vectors of a pass with the tokens that they belong to.
 * @module
 */
import type { LabeledResidualRows } from "../core/residual_writer.ts";
import type { TokenContext } from "../core/token_contexts.ts";

/**
 * The rows of contexts that are kept, in order.
 * @param rows Bits of bf16 `[T, d_model]` of all tokens of the contexts.
 * @param options.most Most rows; what follows them is left out.
 */
export function labeledRows(
  contexts: readonly TokenContext[],
  rows: Uint16Array<ArrayBuffer>,
  { d_model, most }: { readonly d_model: number; readonly most: number },
): LabeledResidualRows {
  const nKept = contexts.reduce(
    (sum, { kept }) => sum + kept.reduce((n, isKept) => n + isKept, 0),
    0,
  );
  const n_rows = Math.min(most, nKept);
  const batch = {
    n_rows,
    d_model,
    rows: new Uint16Array(n_rows * d_model),
    token_ids: new Int32Array(n_rows),
    positions: new Int32Array(n_rows),
    documents: new Int32Array(n_rows),
  };
  let row = 0; // among those kept
  let start = 0; // of the context among all tokens
  for (const { ids, kept, positions, documents } of contexts) {
    for (let t = 0; t < ids.length && row < n_rows; t++) {
      if (kept[t] === 0) continue;
      const from = (start + t) * d_model;
      batch.rows.set(rows.subarray(from, from + d_model), row * d_model);
      batch.token_ids[row] = ids[t]!;
      batch.positions[row] = positions[t]!;
      batch.documents[row] = documents[t]!;
      row++;
    }
    start += ids.length;
  }
  return batch;
}
