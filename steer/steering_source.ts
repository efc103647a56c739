/**
 * The SAEs that features are steered by: which feature belongs to which, what is checked of
 * interventions before anything is loaded, and what the kernel takes for a strength.
 * @module
 */
import type { SaeFile } from "../core/sae_file.ts";
import { NO_THRESHOLD } from "../kernels/steer.ts";
import type { Intervention } from "./interventions.ts";

/** An SAE, and the block after which its features act unless they say otherwise. */
export interface SteeringSource {
  /** Where rows and maxima come from. */
  readonly sae: SaeFile;
  /** From 0. An SAE of `final_norm@l` is applied to the raw stream after block l, as open-concept-steering did. */
  readonly layer: number;
}

/**
 * What activation the encoder is taken to give: `relu` as trained, with the thresholds of jumprelu, or `linear`, the
 * pre-activation as it is, as open-concept-steering did. Of topk a feature alone cannot know whether it is among the k
 * largest, so that `relu` takes the SAE's inference threshold for all features.
 */
export type SteerEncoding = "relu" | "linear";

/** A feature, and the block after which it is meant if that is said. */
export interface PlacedFeature {
  readonly feature: number;
  readonly layer?: number;
}

/**
 * The SAE that a feature is of, and the block after which it acts: one SAE acts at any layer,
 * of several the one whose layer it is.
 * @throws {RangeError} If there is no such feature, or no telling which of several SAEs is meant.
 */
export function placeOf<S extends SteeringSource>(
  sources: readonly S[],
  { feature, layer }: PlacedFeature,
): { source: S; layer: number } {
  const [only, ...more] = sources;
  const source = more.length === 0
    ? only
    : sources.find((source) => source.layer === layer);
  if (!source) {
    const choices = sources.map(({ sae, layer }) => `@${layer} ("${sae.name}")`)
      .join(" or ");
    throw new RangeError(
      `Cannot steer feature ${feature}${
        layer === undefined ? "" : `@${layer}`
      }: expected one of the SAEs' layers behind it, ${choices}: got ${
        layer === undefined ? "none" : "another"
      }`,
    );
  }
  const { sae } = source;
  if (!(Number.isInteger(feature) && feature >= 0 && feature < sae.d_sae)) {
    throw new RangeError(
      `Cannot steer feature ${feature}: expected 0 to ${
        sae.d_sae - 1
      }, the features of "${sae.name}"`,
    );
  }
  checkWord(feature, "layer", layer, 0);
  return { source, layer: layer ?? source.layer };
}

/** Throws unless a number of an intervention is absent, or whole and from `least` to 2³² - 1. */
function checkWord(
  feature: number,
  what: string,
  value: number | undefined,
  least: number,
): void {
  if (
    value === undefined ||
    (Number.isInteger(value) && value >= least && value < 2 ** 32)
  ) return;
  throw new RangeError(
    `Cannot steer feature ${feature}: expected ${what} to be a whole number, ${least} or more: got ${value}`,
  );
}

/**
 * Checks that SAEs can steer together.
 * @throws {RangeError} If there are none, their d_model differ, or two are of one layer.
 */
export function checkSources(sources: readonly SteeringSource[]): void {
  const [first] = sources;
  if (!first) {
    throw new RangeError("Cannot steer: expected at least one SAE: got none");
  }
  for (const [i, { sae, layer }] of sources.entries()) {
    if (sae.d_model !== first.sae.d_model) {
      throw new RangeError(
        `Cannot steer with "${sae.name}": expected d_model ${first.sae.d_model}, that of "${first.sae.name}": got ${sae.d_model}`,
      );
    }
    const same = sources.slice(0, i).find((other) => other.layer === layer);
    if (same) {
      throw new RangeError(
        `Cannot steer with "${sae.name}" and "${same.sae.name}": expected SAEs of different layers: got layer ${layer} of both`,
      );
    }
  }
}

/** An intervention, with its SAE and the block after which it acts. */
export interface PlacedIntervention<S extends SteeringSource> {
  readonly intervention: Intervention;
  readonly source: S;
  readonly layer: number;
}

/**
 * Finds the SAE and the layer of interventions, and checks all that can be without a file.
 * @throws {RangeError} As {@link placeOf}, or if a feature is named twice at one layer, or a number is out of range.
 */
export function placeInterventions<S extends SteeringSource>(
  sources: readonly S[],
  interventions: readonly Intervention[],
): PlacedIntervention<S>[] {
  const seen = new Set<string>();
  return interventions.map((intervention) => {
    const { feature, strength, after, decay } = intervention;
    const { source, layer } = placeOf(sources, intervention);
    const key = `${feature}@${layer}`;
    if (seen.has(key)) {
      throw new RangeError(
        `Cannot steer feature ${feature} twice at once after block ${layer}: give it one strength`,
      );
    }
    seen.add(key);
    if (!Number.isFinite(strength)) {
      throw new RangeError(
        `Cannot steer feature ${feature}: expected a finite strength: got ${strength}`,
      );
    }
    checkWord(feature, "after", after, 0);
    checkWord(feature, "decay", decay, 1);
    return { intervention, source, layer };
  });
}

/**
 * Checks a set of interventions against SAEs, before any of their rows are read.
 * @throws {RangeError} If a feature does not exist, is named twice at a layer, or could be of several SAEs,
 * a number is out of range, or a maximum is unknown.
 */
export async function checkSteering(
  sources: readonly SteeringSource[],
  interventions: readonly Intervention[],
): Promise<void> {
  checkSources(sources);
  const placed = placeInterventions(sources, interventions);
  for (const [{ sae }, some] of Map.groupBy(placed, (p) => p.source)) {
    await strengthsOf(
      sae,
      some.map(({ intervention }) => intervention),
      () => sae.featureMax(),
    );
  }
}

/** Beyond it the square of the residual stream's norm may overflow float32, and all logits become 0. */
const LARGEST_STRENGTH = 1e15;

/**
 * The numbers that the kernel takes for interventions on one SAE: activations without a unit, factors, or 0 to ablate.
 * Maxima are asked for only where they count.
 * @throws {RangeError} If a strength is too large, or a maximum is unknown.
 */
export async function strengthsOf(
  sae: SaeFile,
  interventions: readonly Intervention[],
  featureMax: () => Promise<Float32Array | undefined>,
): Promise<number[]> {
  const counts = ({ mode, unit }: Intervention) =>
    unit === "maximum" && mode !== "scale" && mode !== "ablate";
  const maxima = interventions.some(counts) ? await featureMax() : undefined;
  return interventions.map((intervention) => {
    const { feature, mode, strength } = intervention;
    if (mode === "ablate") return 0;
    const unit = counts(intervention) ? maximumOf(sae, maxima, feature) : 1;
    if (Math.abs(strength * unit) <= LARGEST_STRENGTH) return strength * unit;
    throw new RangeError(
      `Cannot steer feature ${feature} by ${
        strength * unit
      }: expected at most ${LARGEST_STRENGTH} either way`,
    );
  });
}

function maximumOf(
  sae: SaeFile,
  maxima: Float32Array | undefined,
  feature: number,
): number {
  const maximum = maxima?.[feature];
  if (maximum === undefined) {
    throw new RangeError(
      `Cannot steer feature ${feature} in units of its maximum: "${sae.name}" holds no feature_max: give an absolute strength, or take largest activations over with export --from`,
    );
  }
  if (!(maximum > 0)) {
    throw new RangeError(
      `Cannot steer feature ${feature} in units of its maximum: it never fired on the data that "${sae.name}" was measured on: give an absolute strength`,
    );
  }
  return maximum;
}

/** A source that remembers the vectors it has read, so that a changed strength reads no file. */
export class OpenSource implements SteeringSource {
  readonly sae: SaeFile;
  readonly layer: number;
  readonly #encoding: SteerEncoding;
  #b_enc: Float32Array | undefined;
  #thresholdOf: ((feature: number) => number) | undefined;
  #maxima: { values: Float32Array | undefined } | undefined;

  /** Reads nothing yet. */
  constructor({ sae, layer }: SteeringSource, encoding: SteerEncoding) {
    this.sae = sae;
    this.layer = layer;
    this.#encoding = encoding;
  }

  /** Encoder biases, f32 `[d_sae]`. */
  async b_enc(): Promise<Float32Array> {
    return this.#b_enc ??= await this.sae.b_enc();
  }

  /** Largest activations, f32 `[d_sae]`; undefined if they were not measured. */
  async featureMax(): Promise<Float32Array | undefined> {
    this.#maxima ??= { values: await this.sae.featureMax() };
    return this.#maxima.values;
  }

  /**
   * What the activation of a feature must exceed.
   * @throws {RangeError} If the SAE is of topk and has no inference threshold.
   */
  async threshold(feature: number): Promise<number> {
    this.#thresholdOf ??= this.#encoding === "linear"
      ? () => NO_THRESHOLD
      : await thresholds(this.sae);
    return this.#thresholdOf(feature);
  }
}

async function thresholds(sae: SaeFile): Promise<(feature: number) => number> {
  if (sae.architecture === "relu") return () => 0;
  if (sae.architecture === "jumprelu") {
    const values = await sae.threshold();
    return (feature) => values![feature]!;
  }
  const { inferenceThreshold } = sae.metadata;
  if (inferenceThreshold !== undefined) return () => inferenceThreshold;
  throw new RangeError(
    `Cannot steer with "${sae.name}": expected an inference threshold, since which features of topk fire depends on all of them: got none: steer with linear encoding, or only add`,
  );
}
