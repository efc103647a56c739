/**
 * Search by example: which features tell texts about a concept from other texts.
 * @module
 */
import type { HookPoint } from "../core/hook_point.ts";
import type { Olmo2 } from "../core/olmo2.ts";
import type { Sae } from "../core/sae.ts";
import type { Tokenizer } from "../core/tokenizer.ts";
import { featureActivations, type SparseActivations } from "./activations.ts";
import { F1_THRESHOLDS } from "./concept_f1.ts";
import type { Examples } from "./examples.ts";

/** A feature that tells the examples from other texts, with the reasons. */
export interface FeatureMatch {
  /** Index of the feature. */
  readonly feature: number;
  /** F1 that the feature would have as a detector of the concept's tokens, if 5 % of all tokens were the concept's. */
  readonly score: number;
  /** The share of its maximum that an activation must exceed for this, the best of those tried. */
  readonly threshold: number;
  /** Share of the examples' tokens on which it does. */
  readonly recall: number;
  /** Share of other tokens on which it does, in the group of texts where that is largest. */
  readonly falseRate: number;
  /** Difference of the mean activations on the examples and on the other texts, in units of its maximum. */
  readonly difference: number;
  /** Chance that its mean activation is larger on an example than on another text, ties counting half. */
  readonly auroc: number;
}

/** What reads texts. */
export interface FeatureReader {
  /** The model, at least up to the SAE's layer. */
  readonly model: Olmo2;
  /** Its tokenizer. */
  readonly tokenizer: Pick<Tokenizer, "encode">;
  /** Token before each text. */
  readonly startTokenId: number;
  /** The SAE. */
  readonly sae: Sae;
  /** Where the SAE reads. */
  readonly hookPoint: HookPoint;
  /** Largest activation of each feature on a large text, if known. */
  readonly featureMax?: Float32Array | undefined;
}

/** Options of {@link rankFeatures}. */
export interface RankOptions {
  /** Number of features. */
  readonly d_sae: number;
  /** Largest activation of each feature on a large text; that on the given texts where it is absent or 0. */
  readonly featureMax?: Float32Array | undefined;
  /** Most features that are returned. */
  readonly limit: number;
}

/**
 * Share of all tokens that are taken to be about the concept. A feature that fires on
 * everything then has no more than 0.095, whatever its recall, and density needs no
 * other penalty. Measured on the storybook, where a concept has 3 %: 0.05 and
 * 0.1 find its best feature about twice as often as the difference of means does.
 */
const CONCEPT_SHARE = 0.05;

/**
 * Reads the texts, each by itself, and ranks the features.
 * @throws {RangeError} If a text is longer than the model's context.
 */
export async function searchFeatures(
  reader: FeatureReader,
  { positives, contrasts }: Examples,
  options: { readonly limit: number },
): Promise<FeatureMatch[]> {
  const { model, sae, tokenizer, startTokenId } = reader;
  const texts = [positives, ...contrasts].flatMap((group, g) =>
    group.map((text) => ({
      group: g,
      ids: [startTokenId, ...tokenizer.encode(text, { addSpecial: false })],
    }))
  );
  const groups = [positives, ...contrasts].map((): SparseActivations[] => []);
  const tokensPerPass = Math.max(
    2048,
    ...texts.map(({ ids }) => ids.length),
  );
  const passes = featureActivations(model, sae, reader.hookPoint, texts, {
    tokensPerPass,
  });
  for await (const { sequence, acts } of passes) {
    groups[sequence.group]!.push(acts);
  }
  const [first, ...others] = groups;
  return rankFeatures(first!, others, {
    d_sae: sae.d_sae,
    featureMax: reader.featureMax,
    limit: options.limit,
  });
}

/**
 * Ranks the features that fire on the examples by how well they tell them from
 * every group of other texts; best first, of equals the one with the larger difference.
 * @param positives Activations on texts that show the concept, one element a text.
 * @param contrasts The same for groups of texts that do not.
 * @throws {RangeError} If there is no token of the concept, or a group has none.
 */
export function rankFeatures(
  positives: readonly SparseActivations[],
  contrasts: readonly (readonly SparseActivations[])[],
  { d_sae, featureMax, limit }: RankOptions,
): FeatureMatch[] {
  const all = [positives, ...contrasts];
  const maxima = maximaOf(all.flat(), d_sae, featureMax);
  const [inside, ...outside] = all.map((texts) => rates(texts, maxima));
  const others = contrasts.flat();
  const ranked: { feature: number; score: number; j: number }[] = [];
  for (let feature = 0; feature < d_sae; feature++) {
    if (!(inside!.mean[feature]! > 0)) continue;
    let [score, j] = [-1, 0];
    for (let k = 0; k < F1_THRESHOLDS.length; k++) {
      const at = k * d_sae + feature;
      const f1 = f1Of(inside!.above[at]!, worst(outside, at));
      if (f1 > score) [score, j] = [f1, k];
    }
    ranked.push({ feature, score, j });
  }
  const difference = (feature: number): number =>
    inside!.mean[feature]! -
    Math.max(...outside.map(({ mean }) => mean[feature]!));
  return ranked
    .sort((a, b) =>
      b.score - a.score || difference(b.feature) - difference(a.feature)
    )
    .slice(0, limit)
    .map(({ feature, score, j }) => ({
      feature,
      score,
      threshold: F1_THRESHOLDS[j]!,
      recall: inside!.above[j * d_sae + feature]!,
      falseRate: worst(outside, j * d_sae + feature),
      difference: difference(feature),
      auroc: auroc(
        positives.map((acts) => meanOf(acts, feature)),
        others.map((acts) => meanOf(acts, feature)),
      ),
    }));
}

/** F1 of a detector from its recall and its rate of false alarms. */
function f1Of(recall: number, falseRate: number): number {
  const hits = CONCEPT_SHARE * recall;
  const falseAlarms = (1 - CONCEPT_SHARE) * falseRate;
  return 2 * hits / (hits + falseAlarms + CONCEPT_SHARE);
}

/** How features fire on the tokens of a group of texts. */
interface Rates {
  /** Share of tokens above each threshold, `[thresholds, d_sae]`. */
  readonly above: Float64Array;
  /** Mean activation in units of the maximum, `[d_sae]`. */
  readonly mean: Float64Array;
}

function rates(
  texts: readonly SparseActivations[],
  maxima: Float32Array,
): Rates {
  const d_sae = maxima.length;
  const above = new Float64Array(F1_THRESHOLDS.length * d_sae);
  const mean = new Float64Array(d_sae);
  let nTokens = 0;
  for (const { offsets, features, values } of texts) {
    nTokens += offsets.length - 1;
    for (const [k, value] of values.entries()) {
      const feature = features[k]!;
      const share = value / maxima[feature]!;
      mean[feature]! += share;
      for (const [j, threshold] of F1_THRESHOLDS.entries()) {
        if (share > threshold) above[j * d_sae + feature]!++;
      }
    }
  }
  if (nTokens === 0) {
    throw new RangeError(
      "Cannot rank features: expected tokens in the examples and in every group of other texts: got none",
    );
  }
  return {
    above: above.map((n) => n / nTokens),
    mean: mean.map((sum) => sum / nTokens),
  };
}

/** The largest rate of false alarms over the groups of other texts. */
function worst(outside: readonly Rates[], at: number): number {
  return Math.max(...outside.map(({ above }) => above[at]!));
}

function maximaOf(
  texts: readonly SparseActivations[],
  d_sae: number,
  known: Float32Array | undefined,
): Float32Array {
  const maxima = known?.slice() ?? new Float32Array(d_sae);
  const isKnown = Array.from(maxima, (maximum) => maximum > 0);
  for (const { features, values } of texts) {
    for (const [k, value] of values.entries()) {
      const feature = features[k]!;
      if (!isKnown[feature] && value > maxima[feature]!) {
        maxima[feature] = value;
      }
    }
  }
  return maxima;
}

/** Mean activation of one feature over the tokens of a text. */
function meanOf(
  { offsets, features, values }: SparseActivations,
  feature: number,
): number {
  let sum = 0;
  for (const [k, value] of values.entries()) {
    if (features[k] === feature) sum += value;
  }
  return sum / Math.max(1, offsets.length - 1);
}

/** Area under the ROC curve: the chance that one of `inside` exceeds one of `outside`, ties counting half. */
function auroc(inside: readonly number[], outside: readonly number[]): number {
  let wins = 0;
  for (const a of inside) {
    for (const b of outside) wins += a > b ? 1 : a === b ? 0.5 : 0;
  }
  return wins / (inside.length * outside.length);
}
