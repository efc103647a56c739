/**
 * The parts of OLMo-2's forward pass in float64, each as its equation reads.
 * Source: Hugging Face `modeling_olmo2.py`.
 * @module
 */

/** y = weight · x / sqrt(mean(x²) + eps), for one row. */
export function rmsNormReference(
  x: ArrayLike<number>,
  weight: ArrayLike<number>,
  eps: number,
): Float64Array {
  const squares = Array.from(x, (value) => value * value);
  const mean = squares.reduce((a, b) => a + b, 0) / x.length;
  return Float64Array.from(
    x,
    (value, j) => weight[j]! * value / Math.sqrt(mean + eps),
  );
}

/** silu(gate) · up, for one row that holds gate, then up. */
export function siluMulReference(gateUp: ArrayLike<number>): Float64Array {
  const d_ffn = gateUp.length / 2;
  return Float64Array.from({ length: d_ffn }, (_, j) => {
    const gate = gateUp[j]!;
    return gate / (1 + Math.exp(-gate)) * gateUp[d_ffn + j]!;
  });
}

/**
 * Turns every head of one row by the angles of its position: the pair (i, i + d_head/2)
 * by angle i. `turns` holds cos and sin of each, `[d_head / 2, 2]`.
 */
export function ropeReference(
  row: ArrayLike<number>,
  turns: ArrayLike<number>,
): Float64Array {
  const d_head = turns.length;
  const half = d_head / 2;
  return Float64Array.from(row, (value, j) => {
    const i = j % half;
    const isFirst = j % d_head < half;
    const other = row[isFirst ? j + half : j - half]!;
    const [cos, sin] = [turns[2 * i]!, turns[2 * i + 1]!];
    return isFirst ? value * cos - other * sin : value * cos + other * sin;
  });
}

/** Sizes of attention: query and key-value projections, and one head. */
export interface AttentionSizes {
  readonly d_q: number;
  readonly d_kv: number;
  readonly d_head: number;
}

/**
 * z of one token: every query head attends to the given slots of the cache, in
 * the key-value head that its group shares. K and V are `[slots, d_kv]`.
 */
export function attentionReference(
  q: ArrayLike<number>,
  K: ArrayLike<number>,
  V: ArrayLike<number>,
  slots: readonly number[],
  { d_q, d_kv, d_head }: AttentionSizes,
): Float64Array {
  const z = new Float64Array(d_q);
  const queriesPerKey = d_q / d_kv;
  for (let head = 0; head < d_q / d_head; head++) {
    const kvHead = Math.floor(head / queriesPerKey);
    const at = (s: number, i: number) => slots[s]! * d_kv + kvHead * d_head + i;
    const scores = Array.from(slots.keys(), (s) => {
      let score = 0;
      for (let i = 0; i < d_head; i++) {
        score += q[head * d_head + i]! * K[at(s, i)]!;
      }
      return score / Math.sqrt(d_head);
    });
    const largest = scores.reduce((a, b) => Math.max(a, b));
    const weights = scores.map((score) => Math.exp(score - largest));
    const total = weights.reduce((a, b) => a + b);
    for (let i = 0; i < d_head; i++) {
      const sum = weights.reduce((sum, w, s) => sum + w * V[at(s, i)]!, 0);
      z[head * d_head + i] = sum / total;
    }
  }
  return z;
}

/** Negative log-likelihood of a target under one row of logits, in nats; 0 without a target. */
export function crossEntropyReference(
  logits: ArrayLike<number>,
  target: number,
): number {
  if (target >= logits.length) return 0;
  const values = Array.from(logits);
  const largest = values.reduce((a, b) => Math.max(a, b));
  const sum = values.reduce((sum, x) => sum + Math.exp(x - largest), 0);
  return Math.log(sum) + largest - values[target]!;
}
