import type { Gpu, Recorder, Tensor } from "../gpu/mod.ts";
import type { SaeFile } from "../core/sae_file.ts";
import {
  MAX_STEERED_FEATURES,
  NO_THRESHOLD,
  steer,
  STEER_MODES,
} from "../kernels/steer.ts";

/** How a feature's activation is changed; see {@link Intervention}. */
export type SteerMode = "clamp" | "add" | "ablate" | "min" | "scale";

/** All modes, for help texts and checks. */
export const STEER_MODE_NAMES: readonly SteerMode[] = [
  "clamp",
  "add",
  "ablate",
  "min",
  "scale",
];

/**
 * One feature, and what to make of its activation `act`:
 * `clamp` sets it to `strength`, `add` adds `strength` whatever it is, `ablate`
 * sets it to 0, `min` raises it to at least `strength`, `scale` multiplies it by `strength`.
 */
export interface Intervention {
  /** Index of the feature, from 0. */
  readonly feature: number;
  /** What is done to it. */
  readonly mode: SteerMode;
  /** An activation; for `scale` a factor, for `ablate` ignored. */
  readonly strength: number;
  /**
   * Whether an activation counts in multiples of the feature's maximum (`5x`) or is absolute.
   * Ignored for `scale` and `ablate`.
   */
  readonly unit: "absolute" | "maximum";
}

/** How {@link parseIntervention} reads what the text leaves open. */
export interface ParseInterventionOptions {
  /** The mode where the text names none; `clamp` when absent. */
  readonly mode?: SteerMode;
  /** The feature that a label means; without it features are numbers only. Throws for an unknown label. */
  readonly featureOf?: (label: string) => number;
}

/**
 * Reads `758=10` (absolute), `758=5x` (times the feature's maximum), `758=5x:add`,
 * `758=ablate`; with `featureOf` also `baseball=5x`.
 * @throws {SyntaxError} If the text has another form, or the strength is not a finite number.
 */
export function parseIntervention(
  text: string,
  { mode = "clamp", featureOf }: ParseInterventionOptions = {},
): Intervention {
  const [name = "", value, ...rest] = text.split("=").map((part) =>
    part.trim()
  );
  const isLabel = !/^\d+$/.test(name);
  const isAblation = value === "ablate" ||
    (value === undefined && mode === "ablate");
  const [, number = "NaN", unit, ownMode = mode] =
    STRENGTH.exec(isAblation ? "0:ablate" : value ?? "") ?? [];
  const strength = Number(number);
  const named = STEER_MODE_NAMES.find((known) => known === ownMode);
  const fits = name !== "" && rest.length === 0 && (!isLabel || featureOf) &&
    Number.isFinite(strength) && (named === "ablate") === isAblation;
  if (!fits || named === undefined) {
    throw new SyntaxError(
      `Cannot read steering "${text}": expected FEATURE=STRENGTH with a finite number, such as 758=10, 758=5x, 758=5x:add (or ${
        STEER_MODE_NAMES.filter((known) => known !== "ablate").join(", ")
      }) or 758=ablate`,
    );
  }
  return {
    feature: isLabel ? featureOf!(name) : Number(name),
    mode: named,
    strength,
    unit: unit === "x" && named !== "scale" ? "maximum" : "absolute",
  };
}

/** A decimal number, `x` for multiples of the maximum, and a mode. */
const STRENGTH = /^([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)(x?)(?::(\w+))?$/i;

/** `758=5x:add`: the text that {@link parseIntervention} reads. */
export function formatIntervention(
  { feature, mode, strength, unit }: Intervention,
): string {
  if (mode === "ablate") return `${feature}=ablate`;
  return `${feature}=${strength}${unit === "maximum" ? "x" : ""}${
    mode === "clamp" ? "" : `:${mode}`
  }`;
}

/**
 * What activation the encoder is taken to give: `relu` as trained, with the thresholds of jumprelu, or `linear`, the
 * pre-activation as it is, as open-concept-steering did. Of topk a feature alone cannot know whether it is among the k
 * largest, so that `relu` takes the SAE's inference threshold for all features.
 */
export type SteerEncoding = "relu" | "linear";

/**
 * Sets of interventions on the GPU, of which each token of a batch obeys one.
 * Holds the encoder and decoder rows of the steered features only.
 */
export class SteeringBank implements Disposable {
  /** The block after which the residual stream is steered. */
  readonly layer: number;
  readonly #owned: DisposableStack;
  readonly #W_enc: Tensor; // f32 [entries, d_model]
  readonly #W_dec: Tensor; // f32 [entries, d_model]
  readonly #entry: Tensor; // u32 [entries, 4]
  readonly #ranges: readonly (readonly [number, number])[];

  private constructor(
    layer: number,
    owned: DisposableStack,
    tensors: { W_enc: Tensor; W_dec: Tensor; entry: Tensor },
    ranges: readonly (readonly [number, number])[],
  ) {
    this.layer = layer;
    this.#owned = owned;
    this.#W_enc = tensors.W_enc;
    this.#W_dec = tensors.W_dec;
    this.#entry = tensors.entry;
    this.#ranges = ranges;
  }

  /**
   * Reads the features' rows from an SAE file and puts them on the GPU. An SAE of
   * `final_norm@l` is applied to the raw stream after block l, as open-concept-steering did.
   * @throws {RangeError} As {@link kernelStrengths}, or if an SAE of topk has no inference threshold and a mode needs one.
   */
  static async load(
    gpu: Gpu,
    sae: SaeFile,
    sets: readonly (readonly Intervention[])[],
    options: { readonly layer: number; readonly encoding?: SteerEncoding },
  ): Promise<SteeringBank> {
    const { d_model } = sae;
    const all = sets.flat();
    const strengths: number[] = [];
    for (const set of sets) strengths.push(...await kernelStrengths(sae, set));
    const n = Math.max(1, all.length); // a tensor has at least one row
    const W_enc = new Float32Array(n * d_model);
    const W_dec = new Float32Array(n * d_model);
    const entry = new DataView(new ArrayBuffer(16 * n));
    const b_enc = await sae.b_enc();
    // Adding is the same whatever the activation is.
    const isLinear = options.encoding === "linear" ||
      all.every(({ mode }) => mode === "add");
    const thresholdOf = isLinear
      ? (): number => NO_THRESHOLD
      : await thresholds(sae);
    for (const [e, { feature, mode }] of all.entries()) {
      W_enc.set(await sae.rowsOfEncoder(feature, feature + 1), e * d_model);
      W_dec.set(await sae.rowsOfDecoder(feature, feature + 1), e * d_model);
      const number = STEER_MODES[mode === "ablate" ? "clamp" : mode];
      entry.setFloat32(16 * e, b_enc[feature]!, true);
      entry.setUint32(16 * e + 4, number, true);
      entry.setFloat32(16 * e + 8, strengths[e]!, true);
      entry.setFloat32(16 * e + 12, thresholdOf(feature), true);
    }
    using owned = new DisposableStack();
    const tensors = {
      W_enc: owned.use(gpu.floats("steered.W_enc", [n, d_model], W_enc)),
      W_dec: owned.use(gpu.floats("steered.W_dec", [n, d_model], W_dec)),
      entry: owned.use(gpu.upload("steered.entry", "u32", [n, 4], entry)),
    };
    let at = 0;
    const ranges = sets.map((set) => [at, at += set.length] as const);
    return new SteeringBank(options.layer, owned.move(), tensors, ranges);
  }

  /**
   * First and one-past-last entry of set `set`; an empty range where it is undefined.
   * @throws {RangeError} If there is no such set.
   */
  range(set: number | undefined): readonly [number, number] {
    if (set === undefined) return [0, 0];
    const range = this.#ranges[set];
    if (range) return range;
    throw new RangeError(
      `Cannot steer by set ${set}: expected one of ${this.#ranges.length}`,
    );
  }

  /** Records the steering of `x`, f32 `[T, d_model]`, each token by its range of entries, u32 `[T, 2]`. */
  run(rec: Recorder, x: Tensor, ranges: Tensor): void {
    steer.run(rec, {
      W_enc: this.#W_enc,
      W_dec: this.#W_dec,
      entry: this.#entry,
      ranges,
      x,
    });
  }

  /** Frees the memory. */
  [Symbol.dispose](): void {
    this.#owned.dispose();
  }
}

/**
 * What the activation of a feature must exceed.
 * @throws {RangeError} If the SAE is of topk and has no inference threshold.
 */
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

function checkSet(sae: SaeFile, set: readonly Intervention[]): void {
  if (set.length > MAX_STEERED_FEATURES) {
    throw new RangeError(
      `Cannot steer ${set.length} features at once: expected at most ${MAX_STEERED_FEATURES}`,
    );
  }
  const seen = new Set<number>();
  for (const { feature, strength } of set) {
    if (!(Number.isInteger(feature) && feature >= 0 && feature < sae.d_sae)) {
      throw new RangeError(
        `Cannot steer feature ${feature}: expected 0 to ${
          sae.d_sae - 1
        }, the features of "${sae.name}"`,
      );
    }
    if (seen.has(feature)) {
      throw new RangeError(
        `Cannot steer feature ${feature} twice at once: give it one strength`,
      );
    }
    seen.add(feature);
    if (!Number.isFinite(strength)) {
      throw new RangeError(
        `Cannot steer feature ${feature}: expected a finite strength: got ${strength}`,
      );
    }
  }
}

/** Beyond it the square of the residual stream's norm may overflow float32, and all logits become 0. */
const LARGEST_STRENGTH = 1e15;

/**
 * Checks a set of interventions against an SAE.
 * @returns The number that the kernel takes for each: an activation without a unit, a factor, or 0 to ablate.
 * @throws {RangeError} If a feature does not exist or is named twice, a strength is not finite or
 * too large, a maximum is unknown, or there are too many.
 */
export async function kernelStrengths(
  sae: SaeFile,
  interventions: readonly Intervention[],
): Promise<number[]> {
  checkSet(sae, interventions);
  const counts = ({ mode, unit }: Intervention) =>
    unit === "maximum" && mode !== "scale" && mode !== "ablate";
  const maxima = interventions.some(counts)
    ? await sae.featureMax()
    : undefined;
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
      `Cannot steer feature ${feature} in units of its maximum: "${sae.name}" holds no feature_max: give an absolute strength, or run eval on the SAE first`,
    );
  }
  if (!(maximum > 0)) {
    throw new RangeError(
      `Cannot steer feature ${feature} in units of its maximum: it never fired on the data that "${sae.name}" was measured on: give an absolute strength`,
    );
  }
  return maximum;
}
