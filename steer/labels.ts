/**
 * Names that people or models gave to features: `labels.json` in the folder of an SAE.
 * @module
 */
import { z } from "zod";
import { checkJson } from "../core/check_json.ts";
import type { WriteFile } from "../core/sae_file.ts";
import type { ConceptScore } from "./concept_f1.ts";
import { type Folder, readJson } from "../core/source.ts";
import { nearest } from "../core/suggest.ts";

/** File of the labels, `{ "758": { "label": "baseball", "source": "F1 0.56" } }`. */
export const LABELS_FILE = "labels.json";

/** What a feature is called. */
export interface FeatureLabel {
  /** A word or a few. */
  readonly label: string;
  /** Who or what says so, and why. */
  readonly source?: string;
}

/** Labels by feature. */
export type FeatureLabels = ReadonlyMap<number, FeatureLabel>;

const Labels = z.record(
  z.string().regex(/^(?:0|[1-9]\d{0,8})$/, "expected the index of a feature"),
  z.strictObject({
    label: z.string().trim().min(1),
    source: z.string().exactOptional(),
  }),
);

/**
 * Reads the labels of an SAE; none where it has no file of them, or no folder of its own.
 * @throws {SyntaxError} If the file is damaged: names the field.
 * @throws {RangeError} If a label is of a feature that the SAE does not have.
 */
export async function readLabels(
  folder: Folder | undefined,
  d_sae: number,
): Promise<FeatureLabels> {
  if (!folder || !await folder.has(LABELS_FILE)) return new Map();
  const source = await folder.open(LABELS_FILE);
  const json = checkJson(Labels, await readJson(source), source.name);
  const labels = Object.entries(json).map((
    [feature, label],
  ) => [Number(feature), label] as const);
  const wrong = labels.find(([feature]) => feature >= d_sae);
  if (!wrong) return new Map(labels);
  throw new RangeError(
    `Cannot read "${source.name}": expected features from 0 to ${
      d_sae - 1
    }: got ${wrong[0]}: is it of another SAE?`,
  );
}

/** Writes the labels of an SAE, by rising feature. */
export async function writeLabels(
  write: WriteFile,
  labels: FeatureLabels,
): Promise<void> {
  const sorted = [...labels].sort(([a], [b]) => a - b);
  const json = Object.fromEntries(sorted);
  await write(LABELS_FILE, JSON.stringify(json, null, 2) + "\n");
}

/**
 * The one feature that has a label, in upper or lower case.
 * @throws {RangeError} If none has it (suggests the nearest), or several.
 */
export function featureOfLabel(labels: FeatureLabels, label: string): number {
  const features = featuresOf(labels, label);
  const [feature, second] = features;
  if (feature !== undefined && second === undefined) return feature;
  const known = [...labels.values()].map(({ label }) => label);
  const [near] = nearest(lower(label), known, 1);
  throw new RangeError(
    `Cannot find the feature labelled "${label}": expected one: got ${
      features.length > 1
        ? `features ${features.join(", ")}: name one by its number`
        : near === undefined
        ? "none: name it by its number"
        : `none: did you mean "${near}"?`
    }`,
  );
}

/** Whether some feature has a label, in upper or lower case. */
export function hasLabel(labels: FeatureLabels, label: string): boolean {
  return featuresOf(labels, label).length > 0;
}

/**
 * The features whose label has all the words, in upper or lower case: those first whose label has least beside them, then
 * by rising feature.
 */
export function labelledFeatures(
  labels: FeatureLabels,
  words: string,
): number[] {
  const wanted = lower(words).split(/\s+/);
  return [...labels]
    .filter(([, { label }]) =>
      wanted.every((word) => lower(label).includes(word))
    )
    .sort(([a, { label: first }], [b, { label: second }]) =>
      first.length - second.length || a - b
    )
    .map(([feature]) => feature);
}

const lower = (text: string): string => text.trim().toLowerCase();

/** The features that have a label, rising. */
function featuresOf(labels: FeatureLabels, label: string): number[] {
  return [...labels]
    .filter(([, { label: other }]) => lower(other) === lower(label))
    .map(([feature]) => feature)
    .sort((a, b) => a - b);
}

/**
 * Names for the features that tell concepts best: each is called after its concept,
 * and one that is the best for two after the one that it tells better.
 */
export function conceptLabels(scores: readonly ConceptScore[]): FeatureLabels {
  const rising = [...scores].sort((a, b) => a.f1 - b.f1);
  return new Map(rising.map(({ feature, concept, f1 }) => {
    const source = `F1 ${f1.toFixed(3)} on the labelled storybook`;
    return [feature, { label: concept, source }] as const;
  }));
}
