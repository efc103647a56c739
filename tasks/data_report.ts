/**
 * What residuals are like, for a terminal and for a page.
 * @module
 */
import type { ResidualFacts } from "../core/residuals.ts";
import {
  doublingRanges,
  type NormAtPosition,
  type ResidualStats,
} from "../train/residual_stats.ts";
import { formatCount, formatTable } from "./format.ts";
import { escape, page, table } from "./html.ts";
import { curve } from "./plots.ts";

const digits = (value: number): string =>
  Number(value.toPrecision(4)).toString();
const percent = (share: number): string => `${(100 * share).toFixed(2)} %`;

const POSITION_HEADING = ["position", "vectors", "mean norm"];
const TOKEN_HEADING = ["token id", "vectors", "share"];

function positionRows(byPosition: readonly NormAtPosition[]): string[][] {
  return doublingRanges(byPosition).map(({ from, to, n, meanNorm }) => [
    from === to ? `${from}` : `${from}–${to}`,
    formatCount(n),
    digits(meanNorm),
  ]);
}

function tokenRows({ tokens }: ResidualStats): string[][] {
  return tokens.map(({ id, n, share }) => [
    `${id}`,
    formatCount(n),
    percent(share),
  ]);
}

/** Each measure and its value. */
function measures(stats: ResidualStats): string[][] {
  return [
    ["vectors", formatCount(stats.n)],
    ["d_model", `${stats.d_model}`],
    ["mean norm", digits(stats.meanNorm)],
    ["least norm", digits(stats.minNorm)],
    ["greatest norm", digits(stats.maxNorm)],
    ["scale, √d_model / mean norm", digits(stats.scale)],
    ["norm of the mean", digits(stats.normOfMean)],
    ["variance, mean Σ(x − mean)²", digits(stats.variance)],
    ["different tokens", formatCount(stats.nTokenIds)],
  ];
}

/** Tables for a terminal. */
export function describeStats(
  { model, hookPoint }: ResidualFacts,
  stats: ResidualStats,
): string {
  const parts = [
    `${hookPoint ?? "an unknown place"} of ${model.name ?? "an unknown model"}`,
    formatTable(["measure", "value"], measures(stats)),
  ];
  if (stats.byPosition.length > 0) {
    parts.push(formatTable(POSITION_HEADING, positionRows(stats.byPosition)));
  }
  if (stats.tokens.length > 0) {
    parts.push(formatTable(TOKEN_HEADING, tokenRows(stats)));
  }
  return parts.join("\n\n");
}

/** The mean norm at each position, as an `<svg>` element's text. */
export function statsPlot({ byPosition }: ResidualStats): string {
  return curve(
    byPosition.map(({ from, meanNorm }) => ({ x: from, y: meanNorm })),
    { xLabel: "position", yLabel: "mean norm" },
  );
}

/** A page with the plot and all tables. */
export function statsPage(name: string, stats: ResidualStats): string {
  return page(
    `Residuals: ${name}`,
    [
      `<h1>${escape(name)}</h1>`,
      table(["measure", "value"], measures(stats)),
      `<h2>Norm by position</h2>`,
      `<figure>${statsPlot(stats)}</figure>`,
      table(POSITION_HEADING, positionRows(stats.byPosition)),
      `<h2>Most frequent tokens</h2>`,
      table(TOKEN_HEADING, tokenRows(stats)),
    ].join("\n"),
  );
}
