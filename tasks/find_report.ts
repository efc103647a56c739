/**
 * What `find` prints: features with their contexts, for people and for machines.
 * @module
 */
import type { Tokenizer } from "../core/tokenizer.ts";
import type { Examples } from "../steer/examples.ts";
import type { FeatureEntry, FeatureIndex } from "../steer/feature_index.ts";
import type { FeatureLabels } from "../steer/labels.ts";
import type { FeatureMatch } from "../steer/search.ts";
import { contextText } from "../steer/top_contexts.ts";
import { densityHistogram } from "../train/evaluate.ts";
import { formatCount, formatTable } from "./format.ts";

/** How features are shown. */
export interface FeatureStyle {
  readonly tokenizer: Pick<Tokenizer, "streamDecoder">;
  readonly labels: FeatureLabels;
  /** Contexts of a feature. */
  readonly nContexts: number;
  /** Put around the tokens on which it fires. */
  readonly marks: readonly [open: string, close: string];
}

/** A share as people read it: 2.1 %, 0.004 %. */
function formatShare(share: number): string {
  const percent = 100 * share;
  if (percent === 0) return "0 %";
  return `${percent >= 9.95 ? percent.toFixed(0) : percent.toPrecision(2)} %`;
}

/** One feature: its numbers in a line, then its strongest contexts. */
export function describeFeature(
  entry: FeatureEntry,
  index: FeatureIndex,
  style: FeatureStyle,
): string {
  const { feature, max, density, mean, contexts } = entry;
  const { nTokens, text } = index.header;
  const label = style.labels.get(feature);
  const name = `feature ${feature}${label ? ` (${label.label})` : ""}`;
  if (max === 0) {
    return `${name}: never fires on ${formatCount(nTokens)} tokens of ${text}`;
  }
  const lines = contexts.slice(0, style.nContexts).map((context) =>
    `  ${context.activation.toPrecision(3).padStart(6)}  ${
      contextText(context, style.tokenizer, style.marks)
    }  [${context.document}]`
  );
  return [
    `${name}: fires on ${formatShare(density)} of tokens, max ${
      max.toPrecision(3)
    }, mean ${mean.toPrecision(3)}`,
    ...lines,
  ].join("\n");
}

/** One feature for machines. */
export function featureJson(
  entry: FeatureEntry,
  style: FeatureStyle,
): Readonly<Record<string, unknown>> {
  const { feature, max, density, mean, contexts } = entry;
  return {
    feature,
    label: style.labels.get(feature)?.label ?? null,
    max,
    density,
    mean,
    contexts: contexts.slice(0, style.nContexts).map((context) => ({
      document: context.document,
      position: context.position,
      activation: context.activation,
      text: contextText(context, style.tokenizer),
      ids: context.ids,
      acts: context.acts,
    })),
  };
}

/** What the examples of a search are, in one line. */
export function describeExamples(
  { nFound, positives, contrasts }: Examples,
  text: string,
): string {
  const words = [...nFound].map(([word, n]) =>
    n > 0
      ? `${n} sentences with "${word}"`
      : `made sentences with "${word}", which ${text} lacks`
  );
  const nContrasts = contrasts.reduce((sum, group) => sum + group.length, 0);
  return `${positives.length} examples${
    words.length > 0 ? ` (${words.join(", ")})` : ""
  } against ${nContrasts} other texts`;
}

/** The features of a search, best first, with the reasons. */
export function describeMatches(
  matches: readonly FeatureMatch[],
  index: FeatureIndex,
  style: FeatureStyle,
): string {
  if (matches.length === 0) return "no feature fires on the examples";
  const rows = matches.map((match) => [
    String(match.feature),
    style.labels.get(match.feature)?.label ?? "",
    match.score.toFixed(3),
    formatShare(match.recall),
    formatShare(match.falseRate),
    `${match.threshold}x`,
    match.difference.toFixed(3),
    match.auroc.toFixed(3),
    formatShare(index.entry(match.feature).density),
  ]);
  const table = formatTable([
    "feature",
    "label",
    "score",
    "on examples",
    "elsewhere",
    "above",
    "difference",
    "AUROC",
    "density",
  ], rows);
  const features = matches.map(({ feature }) =>
    describeFeature(index.entry(feature), index, style)
  );
  return [table, ...features].join("\n\n");
}

/** Features by their labels, with who says so, and what they fire on where an index tells. */
export function describeLabelled(
  features: readonly number[],
  n: number,
  index: FeatureIndex | undefined,
  style: FeatureStyle,
): string {
  if (n === 0) return "no label has these words";
  const rows = features.map((feature) => {
    const { label = "", source = "" } = style.labels.get(feature) ?? {};
    return [String(feature), label, source];
  });
  const rest = n - features.length;
  return [
    formatTable(["feature", "label", "source"], rows),
    ...rest > 0 ? [`and ${formatCount(rest)} more: --limit ${n}`] : [],
    ...index
      ? features.map((i) => describeFeature(index.entry(i), index, style))
      : [],
  ].join("\n\n");
}

/** An index as a whole: a histogram of density, and the features that fire most often. */
export function describeIndex(
  index: FeatureIndex,
  limit: number,
  style: FeatureStyle,
): string {
  const { header, numbers } = index;
  const { density } = numbers;
  const nDead = numbers.max.filter((max) => max === 0).length;
  const L0 = density.reduce((sum, share) => sum + share, 0);
  const bins = densityHistogram(density, Math.max(1, header.nTokens));
  const widest = Math.max(1, ...bins.map(({ nFeatures }) => nFeatures));
  const bars = bins.map(({ from, nFeatures }) => {
    const share = formatShare(10 ** from).padStart(8);
    const bar = "#".repeat(Math.ceil(40 * nFeatures / widest));
    return `${share}  ${String(nFeatures).padStart(6)}  ${bar}`.trimEnd();
  });
  const first = bars.findIndex((_, i) => bins[i]!.nFeatures > 0);
  const densest = [...density.keys()]
    .sort((a, b) => density[b]! - density[a]! || a - b)
    .slice(0, limit)
    .map((feature) => describeFeature(index.entry(feature), index, style));
  return [
    `${formatCount(header.nTokens)} tokens of ${
      formatCount(header.nDocuments)
    } documents of ${header.text}: ${formatCount(header.d_sae)} features, ${
      formatCount(nDead)
    } that never fire, L0 ${L0.toFixed(2)}`,
    [
      "features by the share of tokens on which they fire, from:",
      ...bars.slice(Math.max(0, first)),
    ].join("\n"),
    ...densest,
  ].join("\n\n");
}
