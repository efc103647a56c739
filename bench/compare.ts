/**
 * What was measured, set beside each other and beside the targets.
 * @module
 */
import { type Measured, medianRatio, type Sample } from "./side.ts";

/** A ratio of two sides, or a figure of one, with what it should be. */
export interface Comparison {
  /** What is measured. */
  readonly measure: string;
  /** Ours, with its unit. */
  readonly ours: string;
  /** Whom it is compared with, with its figure; "" for a figure alone. */
  readonly other: string;
  /** What the target is about: a ratio, a rate or a share; undefined where a side is missing. */
  readonly value: number | undefined;
  /** Unit of the value: "×", "GFLOP/s", "%". */
  readonly unit: string;
  /** The value from processor times, which what else the machine does changes less; undefined where they tell nothing. */
  readonly cpuValue: number | undefined;
  /** What holds if the target is met; undefined where none was set. */
  readonly target: Target | undefined;
}

/** A bound, itself included. */
export interface Target {
  readonly bound: "least" | "most";
  readonly value: number;
}

/** Whether a target is met; undefined where there is none, or nothing was measured. */
export function isMet(
  { value, target }: Pick<Comparison, "value" | "target">,
): boolean | undefined {
  if (!target || value === undefined) return undefined;
  return target.bound === "least"
    ? value >= target.value
    : value <= target.value;
}

/** How many times as fast the first side is as the second. */
export function compareSides(
  measure: string,
  ours: Measured,
  other: Measured | { readonly missing: string },
  least: number | undefined,
): Comparison {
  const isMissing = "missing" in other;
  const times = (side: Measured, time: keyof Sample): number[] =>
    side.samples.map((sample) => sample[time]);
  const ratio = (time: keyof Sample): number | undefined =>
    isMissing ? undefined : medianRatio(times(other, time), times(ours, time));
  return {
    measure,
    ours: `${ours.name}: ${formatMs(ours.wallMs)}`,
    other: isMissing
      ? other.missing
      : `${other.name}: ${formatMs(other.wallMs)}`,
    value: ratio("wallMs"),
    unit: "×",
    cpuValue: ratio("cpuMs"),
    target: least === undefined ? undefined : { bound: "least", value: least },
  };
}

/**
 * The rate of a product.
 * @param options.flop Operations of one.
 * @param options.nCores On how many cores a software driver runs, to tell the rate on all of them where others use some; undefined for graphics cards.
 */
export function productRate(
  measure: string,
  side: Measured,
  { flop, nCores, least }: {
    readonly flop: number;
    readonly nCores: number | undefined;
    readonly least: number;
  },
): Comparison {
  return {
    measure,
    ours: `${side.name}: ${formatMs(side.wallMs)}`,
    other: "",
    value: flop / side.wallMs / 1e6,
    unit: "GFLOP/s",
    cpuValue: nCores === undefined
      ? undefined
      : flop * nCores / side.cpuMs / 1e6,
    target: { bound: "least", value: least },
  };
}

/** A time with three digits. */
export function formatMs(ms: number): string {
  return `${ms >= 100 ? ms.toFixed(0) : ms.toPrecision(3)} ms`;
}

/** Cells of a comparison: measure, ours, other, value, value from processor times, target, whether it is met. */
export function cells(comparison: Comparison): string[] {
  const { measure, ours, other, value, unit, cpuValue, target } = comparison;
  const met = isMet(comparison);
  return [
    measure,
    ours,
    other,
    value === undefined ? "-" : `${value.toFixed(2)} ${unit}`,
    cpuValue === undefined ? "" : `${cpuValue.toFixed(2)} ${unit}`,
    target
      ? `${target.bound === "least" ? "≥" : "≤"} ${target.value} ${unit}`
      : "",
    met === undefined
      ? (target ? "not measured" : "")
      : met
      ? "met"
      : "NOT met",
  ];
}
