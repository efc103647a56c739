/**
 * What is done to which features: the types, and how people write them.
 * @module
 */
export {
  type SteeredToken,
  SteeringBank,
  type SteeringBankOptions,
} from "./steering_bank.ts";
export { type WatchedFeature } from "./steering_entries.ts";
export {
  checkSteering,
  placeOf,
  type SteerEncoding,
  type SteeringSource,
} from "./steering_source.ts";

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
 *
 * With n the number of the reply's tokens up to and with the token at hand (0 in the prompt), it
 * acts where n ≥ `after`, and the change is multiplied by clamp(1 − (n − `after`) / `decay`, 0, 1).
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
  /** Block after which it acts; that of the SAE when absent. */
  readonly layer?: number;
  /**
   * The first n at which it acts; 0 when absent: the prompt too. 1 leaves the prompt alone, which chooses
   * the first token; N leaves the first N tokens of the reply as they would be.
   */
  readonly after?: number;
  /** Tokens over which the effect fades to none; it never does when absent. */
  readonly decay?: number;
}

/** How {@link parseIntervention} reads what the text leaves open. */
export interface ParseInterventionOptions {
  /** The mode where the text names none; `clamp` when absent. */
  readonly mode?: SteerMode;
  /**
   * The feature that a label means at a layer, or where the text names none; without it features are
   * numbers only. Throws for an unknown label.
   */
  readonly featureOf?: (label: string, layer: number | undefined) => number;
}

/** A name, and a layer behind the last @. */
const PLACE = /^(.*?)(?:@(\d+))?$/s;
/** A decimal number, and `x` for multiples of the maximum. */
const STRENGTH = /^([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)(x?)$/i;
/** What may follow the strength, each once: a mode, or one of the schedule's numbers. */
const OPTION = /^(?:([a-z]+)|(after|decay) ?= ?(\d+))$/;
/** Schedules and layers are words of the kernel. */
const LARGEST_WORD = 2 ** 32 - 1;

/**
 * Reads `758=10` (absolute), `758=5x` (times the feature's maximum), `758=ablate`, `758@3=5x` (after block 3),
 * and behind the strength in any order a mode and a schedule: `758=5x:add:after=20:decay=50`;
 * with `featureOf` also `baseball=5x`.
 * @throws {SyntaxError} If the text has another form, or the strength is not a finite number.
 */
export function parseIntervention(
  text: string,
  { mode = "clamp", featureOf }: ParseInterventionOptions = {},
): Intervention {
  const [, left = "", right] = /^([^=]*)(?:=(.*))?$/s.exec(text) ?? [];
  const [, name = "", layer] = PLACE.exec(left.trim()) ?? [];
  const isLabel = !/^\d+$/.test(name.trim());
  const parts = readParts(right ?? (mode === "ablate" ? "ablate" : ""), mode);
  const place = layer === undefined ? {} : { layer: Number(layer) };
  if (
    name.trim() === "" || (isLabel && !featureOf) || parts === undefined ||
    (place.layer ?? 0) > LARGEST_WORD
  ) {
    throw new SyntaxError(
      `Cannot read steering "${text}": expected FEATURE=STRENGTH with a finite number, such as 758=10, 758=5x, 758=5x:add (or ${
        STEER_MODE_NAMES.filter((known) => known !== "ablate").join(", ")
      }), 758=ablate, 758@3=5x (after block 3) or 758=5x:after=20:decay=50 (tokens of the reply, decay from 1)`,
    );
  }
  return {
    feature: isLabel ? featureOf!(name.trim(), place.layer) : Number(name),
    ...parts,
    ...place,
  };
}

/** What stands behind the first =; undefined if it has another form. */
function readParts(
  text: string,
  defaultMode: SteerMode,
): Omit<Intervention, "feature" | "layer"> | undefined {
  const [first = "", ...options] = text.split(":").map((part) => part.trim());
  const isAblation = first === "ablate";
  const [, number = "NaN", unit] = STRENGTH.exec(isAblation ? "0" : first) ??
    [];
  const found = new Map<string, string>();
  for (const option of options) {
    const [, named, key = "mode", number] = OPTION.exec(option) ?? [];
    const value = named ?? number;
    if (value === undefined || found.has(key)) return undefined;
    found.set(key, value);
  }
  const wanted = isAblation ? "ablate" : found.get("mode") ?? defaultMode;
  const mode = STEER_MODE_NAMES.find((known) => known === wanted);
  const strength = Number(number);
  const [after, decay] = ["after", "decay"].map((key) =>
    found.has(key) ? Number(found.get(key)) : undefined
  );
  if (
    mode === undefined || !Number.isFinite(strength) ||
    (mode === "ablate") !== isAblation || (isAblation && found.has("mode")) ||
    (after ?? 0) > LARGEST_WORD || decay === 0 || (decay ?? 1) > LARGEST_WORD
  ) return undefined;
  return {
    mode,
    strength,
    unit: unit && mode !== "scale" ? "maximum" : "absolute",
    ...(after !== undefined && { after }),
    ...(decay !== undefined && { decay }),
  };
}

/** `758@3=5x:add:after=20:decay=50`: the text that {@link parseIntervention} reads. */
export function formatIntervention(
  { feature, mode, strength, unit, layer, after, decay }: Intervention,
): string {
  const number = Object.is(strength, -0) ? "-0" : `${strength}`;
  const value = mode === "ablate"
    ? mode
    : `${number}${unit === "maximum" ? "x" : ""}`;
  return [
    `${feature}${layer === undefined ? "" : `@${layer}`}=${value}`,
    ...(mode === "clamp" || mode === "ablate" ? [] : [mode]),
    ...(after === undefined ? [] : [`after=${after}`]),
    ...(decay === undefined ? [] : [`decay=${decay}`]),
  ].join(":");
}
