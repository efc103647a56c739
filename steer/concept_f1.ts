/**
 * How well single features tell the concepts of a labelled text apart.
 * @module
 */
import type { SparseActivations } from "./activations.ts";

/** A feature, read as a detector of a concept. */
export interface ConceptScore {
  /** The concept. */
  readonly concept: string;
  /** Index of the feature. */
  readonly feature: number;
  /** A token is taken for the concept's when the activation exceeds this share of the feature's maximum. */
  readonly threshold: number;
  /** Harmonic mean of precision and recall over tokens. */
  readonly f1: number;
  /** Share of the tokens it takes that are the concept's. */
  readonly precision: number;
  /** Share of the concept's tokens that it takes. */
  readonly recall: number;
}

/** Features tried for a concept. */
export const F1_CANDIDATES = 20;
/** Thresholds tried for a feature, as shares of its maximum. */
export const F1_THRESHOLDS: readonly number[] = [0, 0.05, 0.1, 0.2, 0.4];

/**
 * The best detector of every concept in `concepts`, in the order in which they
 * first occur. The features with the largest difference of mean activation, in
 * units of their maximum, inside and outside of the concept are tried, each at all
 * thresholds; of equals the first is kept. All sums are in float64.
 * @param acts One row a token.
 * @param concepts Concept of each token, undefined for none.
 * @param featureMax Largest activation of each feature; that on `acts` when absent.
 * @throws {TypeError} If there is not one concept a row.
 */
export function conceptScores(
  acts: SparseActivations,
  concepts: readonly (string | undefined)[],
  d_sae: number,
  featureMax: ArrayLike<number> = featureMaxima(acts, d_sae),
): ConceptScore[] {
  if (concepts.length !== acts.offsets.length - 1) {
    throw new TypeError(
      `Cannot score concepts: expected one for each of ${
        acts.offsets.length - 1
      } tokens: got ${concepts.length}`,
    );
  }
  const { nTokens, sums, total } = sumsByConcept(acts, concepts, d_sae);
  return [...sums].map(([concept, inside]) => {
    const n = nTokens.get(concept)!;
    const nOutside = concepts.length - n;
    const differences = inside.map((sum, i) => {
      const maximum = featureMax[i]!;
      if (!(maximum > 0)) return 0;
      const outside = nOutside > 0 ? (total[i]! - sum) / nOutside : 0;
      return (sum / n - outside) / maximum;
    });
    return bestOf(
      concept,
      acts,
      concepts.map((other) => other === concept),
      largest(differences, F1_CANDIDATES),
      featureMax,
    );
  });
}

/** Largest activation of each feature, f32 `[d_sae]`; 0 for one that never fires. */
export function featureMaxima(
  { features, values }: SparseActivations,
  d_sae: number,
): Float32Array<ArrayBuffer> {
  const maxima = new Float32Array(d_sae);
  for (const [k, value] of values.entries()) {
    const feature = features[k]!;
    if (value > maxima[feature]!) maxima[feature] = value;
  }
  return maxima;
}

/** Indices of the `n` largest values, largest first; of equals the first. */
export function largest(values: ArrayLike<number>, n: number): number[] {
  return Array.from({ length: values.length }, (_, i) => i)
    .sort((a, b) => values[b]! - values[a]! || a - b)
    .slice(0, n);
}

function sumsByConcept(
  { offsets, features, values }: SparseActivations,
  concepts: readonly (string | undefined)[],
  d_sae: number,
): {
  nTokens: Map<string, number>;
  sums: Map<string, Float64Array>;
  total: Float64Array;
} {
  const nTokens = new Map<string, number>();
  const sums = new Map<string, Float64Array>();
  const total = new Float64Array(d_sae);
  for (const [t, concept] of concepts.entries()) {
    let sum: Float64Array | undefined;
    if (concept !== undefined) {
      nTokens.set(concept, (nTokens.get(concept) ?? 0) + 1);
      sum = sums.get(concept) ?? new Float64Array(d_sae);
      sums.set(concept, sum);
    }
    for (let k = offsets[t]!; k < offsets[t + 1]!; k++) {
      total[features[k]!]! += values[k]!;
      if (sum) sum[features[k]!]! += values[k]!;
    }
  }
  return { nTokens, sums, total };
}

function bestOf(
  concept: string,
  { offsets, features, values }: SparseActivations,
  isInside: readonly boolean[],
  candidates: readonly number[],
  featureMax: ArrayLike<number>,
): ConceptScore {
  const place = new Map(candidates.map((feature, c) => [feature, c]));
  const nThresholds = F1_THRESHOLDS.length;
  // Tokens above each threshold of each candidate, all of them and the concept's.
  const taken = new Float64Array(candidates.length * nThresholds);
  const hits = new Float64Array(candidates.length * nThresholds);
  for (const [t, inside] of isInside.entries()) {
    for (let k = offsets[t]!; k < offsets[t + 1]!; k++) {
      const c = place.get(features[k]!);
      if (c === undefined) continue;
      const maximum = featureMax[features[k]!]!;
      for (const [j, threshold] of F1_THRESHOLDS.entries()) {
        if (!(values[k]! > threshold * maximum)) continue;
        taken[c * nThresholds + j]!++;
        if (inside) hits[c * nThresholds + j]!++;
      }
    }
  }
  const nInside = isInside.filter((inside) => inside).length;
  let best: ConceptScore | undefined;
  for (const [c, feature] of candidates.entries()) {
    for (const [j, threshold] of F1_THRESHOLDS.entries()) {
      const [hit, n] = [
        hits[c * nThresholds + j]!,
        taken[c * nThresholds + j]!,
      ];
      const f1 = 2 * hit / (n + nInside);
      if (best && f1 <= best.f1) continue;
      const precision = n > 0 ? hit / n : 0;
      const recall = hit / nInside;
      best = { concept, feature, threshold, f1, precision, recall };
    }
  }
  return best!;
}
