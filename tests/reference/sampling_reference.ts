/**
 * Sampling in float64: logits after bias and penalties, what remains after temperature,
 * top-k, top-p and min-p, and which token a seed and a step draw from it.
 * @module
 */

/** How the tokens of one row are drawn. */
export interface RowSettings {
  readonly temperature: number;
  readonly top_p: number;
  readonly min_p: number;
  /** 0 keeps all. */
  readonly top_k: number;
  readonly seed: number;
  /** How many tokens the row has so far. */
  readonly step: number;
}

/** The probabilities of one row of finite logits, or logits of −∞. */
export function filterReference(
  logits: ArrayLike<number>,
  { temperature, top_p, min_p, top_k }: RowSettings,
): Float64Array {
  const values = Array.from(logits);
  const largest = values.reduce((a, b) => Math.max(a, b));
  if (temperature === 0) {
    const first = values.indexOf(largest);
    return Float64Array.from(values, (_, v) => v === first ? 1 : 0);
  }
  const descending = Float64Array.from(values).sort().reverse();
  const kth = top_k > 0 && top_k < values.length
    ? descending[top_k - 1]!
    : -Infinity;
  const weights = values.map((x) =>
    x >= kth ? Math.exp((x - largest) / temperature) : 0
  );
  const least = Math.max(
    top_p < 1 ? leastWeight(weights, top_p) : 0,
    min_p, // of the likeliest token's weight, which is 1
  );
  const kept = weights.map((w) => w >= least ? w : 0);
  const total = kept.reduce((a, b) => a + b);
  return Float64Array.from(kept, (w) => w / total);
}

/** Whether rounding leaves the choice of tokens as it is: no sum is close to top_p, no weight to min_p. */
export function isClearCut(
  logits: ArrayLike<number>,
  settings: RowSettings,
): boolean {
  const { top_p, min_p } = settings;
  const before = { ...settings, top_p: 1, min_p: 0 };
  const descending = filterReference(logits, before).sort().reverse();
  let sum = 0;
  return descending.every((p) => {
    sum += p;
    return (top_p === 1 || Math.abs(sum - top_p) > 1e-5) &&
      (min_p === 0 || Math.abs(p / descending[0]! - min_p) > 1e-5 * min_p);
  });
}

/** Penalties of one row, and the tokens before. */
export interface RowPenalties {
  readonly repetition: number;
  readonly presence: number;
  readonly frequency: number;
  /** Token to bias. */
  readonly bias: ReadonlyMap<number, number>;
  readonly prompt: readonly number[];
  readonly reply: readonly number[];
}

/** Logits after bias, repetition penalty, presence and frequency penalties. */
export function penalizeReference(
  logits: ArrayLike<number>,
  { repetition, presence, frequency, bias, prompt, reply }: RowPenalties,
): Float64Array {
  const before = new Set([...prompt, ...reply]);
  return Float64Array.from(logits, (logit, v) => {
    const biased = logit + (bias.get(v) ?? 0);
    const scale = biased > 0 ? 1 / repetition : repetition;
    const count = reply.filter((token) => token === v).length;
    return (before.has(v) ? biased * scale : biased) -
      (count > 0 ? presence : 0) - frequency * count;
  });
}

/** The smallest weight w such that the weights above it make up less than top_p of all. */
function leastWeight(weights: readonly number[], top_p: number): number {
  const descending = Float64Array.from(weights).sort().reverse();
  const total = descending.reduce((a, b) => a + b);
  let least = descending[0]!;
  let above = 0; // mass of the weights larger than the one at hand
  for (let i = 0; i < descending.length;) {
    if (i > 0 && above >= top_p * total) break;
    least = descending[i]!;
    const end = descending.findIndex((w, j) => j > i && w < least);
    const next = end < 0 ? descending.length : end;
    above += least * (next - i);
    i = next;
  }
  return least;
}

/** pcg3d's first word as a number in [0, 1). Source: Jarzynski and Olano, 2020. */
export function uniformReference(seed: number, step: number): number {
  let [x, y, z] = [seed, step, 0].map((n) =>
    (Math.imul(n, 1664525) + 1013904223) | 0
  ) as [number, number, number];
  for (const isLast of [false, true]) {
    x = (x + Math.imul(y, z)) | 0;
    y = (y + Math.imul(z, x)) | 0;
    z = (z + Math.imul(x, y)) | 0;
    if (!isLast) [x, y, z] = [x ^ (x >>> 16), y ^ (y >>> 16), z ^ (z >>> 16)];
  }
  return (x >>> 9) / 2 ** 23;
}

/** A token drawn by inverse distribution, and how far the draw was from another token's range. */
export function pickReference(
  probs: ArrayLike<number>,
  seed: number,
  step: number,
): { readonly token: number; readonly margin: number } {
  const values = Array.from(probs);
  const goal = uniformReference(seed, step) * values.reduce((a, b) => a + b);
  let before = 0;
  for (const [token, p] of values.entries()) {
    if (p > 0 && before + p > goal) {
      return { token, margin: Math.min(goal - before, before + p - goal) };
    }
    before += p;
  }
  throw new RangeError("Cannot pick a token: expected some mass: got none");
}
