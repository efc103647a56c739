/**
 * Training runs as a page that opens without a network: curves, where the time
 * went, how often features fire, results and settings; several runs on top of each other.
 * @module
 */
import type { MetricsLine, StepMs } from "../train/metrics_line.ts";
import { formatCount, formatRate } from "./format.ts";
import { escape, page, table } from "./html.ts";
import {
  type CurvePoint,
  curves,
  histograms,
  PLOT_WIDTH,
  seriesColor,
  stackedAreas,
  type Stretch,
  stretchRows,
} from "./plots.ts";
import type { RunFolder } from "./run_folder.ts";
import { average, thin } from "./thin.ts";

/** A curve of the page. */
interface Chart {
  readonly title: string;
  readonly yLabel: string;
  readonly isLog: boolean;
  readonly value: (line: MetricsLine) => number | undefined;
}

const CHARTS: readonly Chart[] = [
  log("loss", "loss", ({ loss }) => loss),
  log("FVU of the batch", "FVU", ({ fvu }) => fvu),
  log("features per vector", "L0", ({ L0 }) => L0),
  log("squared error", "mse", ({ mseSumPerToken }) => mseSumPerToken),
  log("L1, before λ", "L1", ({ l1 }) => l1),
  linear("dead features", "%", ({ deadShare }) => 100 * deadShare),
  log("norm of the gradient", "gradient", ({ gradNorm }) => gradNorm),
  linear("sparsity coefficient", "λ", ({ lambda }) => lambda),
  linear("learning rate", "lr", ({ lr }) => lr),
  log("AuxK loss", "AuxK", ({ auxLoss }) => auxLoss),
  linear("resampled features", "features", ({ resampled }) => resampled),
  linear(
    "speed",
    "tokens/s",
    ({ tokensPerSecond }) => tokensPerSecond,
  ),
];

function log(title: string, yLabel: string, value: Chart["value"]): Chart {
  return { title, yLabel, isLog: true, value };
}

function linear(title: string, yLabel: string, value: Chart["value"]): Chart {
  return { title, yLabel, isLog: false, value };
}

/** Parts of a step's time, from the bottom. */
const TIMES: readonly {
  readonly what: string;
  readonly ms: (ms: StepMs) => number;
}[] = [
  { what: "GPU", ms: ({ wait }) => wait },
  { what: "host", ms: ({ host }) => host },
  { what: "loading", ms: ({ load }) => load },
  {
    what: "other",
    ms: ({ step, load, host, wait }) => Math.max(0, step - load - host - wait),
  },
];
const TIME_COLORS = [0, 1, 2, 4].map(seriesColor);

/** Features that never fired are at log10(1e-10). */
const NEVER_FIRED = -9.5;
const DENSITY_BINS = 40;
/** Columns of points of a plot: about the pixels inside its axes. */
const COLUMNS = PLOT_WIDTH - 60;

/** The page. */
export function runReportPage(runs: readonly RunFolder[]): string {
  const names = runs.map(({ name }) => name).join(", ");
  return page(
    `Training: ${names}`,
    `<h1>Training of sparse autoencoders</h1>
${legend(runs.map(({ name }) => name), runs.map((_, n) => seriesColor(n)))}
${damage(runs)}
<h2>Results</h2>
<div class="wide">${results(runs)}</div>
<h2>Curves over the steps</h2>
${pathCaption(runs)}
<div class="plots">
${
      [...CHARTS.map((chart) => curveFigure(chart, runs)), pathFigure(runs)]
        .join("\n")
    }
</div>
${times(runs)}
${density(runs)}
<h2>Settings</h2>
<div class="wide">${settings(runs)}</div>`,
  );
}

/** What each color stands for. */
function legend(names: readonly string[], colors: readonly string[]): string {
  const items = names.map((name, n) =>
    `<li><span class="swatch" style="background:${colors[n]}"></span>${
      escape(name)
    }</li>`
  );
  return `<ul class="legend">${items.join("")}</ul>`;
}

/** Says which metrics could not be read. */
function damage(runs: readonly RunFolder[]): string {
  return runs.filter(({ nDamaged }) => nDamaged > 0).map(
    ({ name, nDamaged }) =>
      `<p class="quiet">${escape(name)}: ${
        formatCount(nDamaged)
      } damaged lines of the metrics are left out.</p>`,
  ).join("\n");
}

function results(runs: readonly RunFolder[]): string {
  const rows = runs.map(({ name, lines, isDone, heldOut, logDensity }) => {
    const last = lines.at(-1)!;
    return [
      name,
      isDone === undefined ? "" : isDone ? "complete" : "not complete",
      formatCount(last.step + 1),
      shown(last.tokens, formatCount),
      shown(last.fvu, (value) => value.toFixed(4)),
      shown(last.L0, (value) => value.toFixed(2)),
      shown(heldOut["fvu"], (value) => value.toFixed(4)),
      shown(heldOut["L0"], (value) => value.toFixed(2)),
      shown(heldOut["deadShare"], (value) => `${(100 * value).toFixed(2)}%`),
      logDensity ? formatCount(nSilent(logDensity)) : "",
      shown(median(lines.map((line) => line.tokensPerSecond)), formatRate),
    ];
  });
  return table([
    "run",
    "state",
    "steps",
    "tokens",
    "last FVU",
    "last L0",
    "held-out FVU",
    "held-out L0",
    "held-out dead",
    "never fired",
    "median tokens/s",
  ], rows);
}

/** A number as a cell; empty for what is none. */
function shown(value: unknown, format: (value: number) => string): string {
  return typeof value === "number" && Number.isFinite(value)
    ? format(value)
    : "";
}

function median(values: readonly number[]): number | undefined {
  const sorted = values.filter(Number.isFinite).sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)];
}

/** Empty where no run has the number. */
function curveFigure(
  { title, yLabel, isLog, value }: Chart,
  runs: readonly RunFolder[],
): string {
  const series = runs.map(({ lines }, n) => ({
    points: thin(pointsOf(lines, value), COLUMNS),
    color: seriesColor(n),
  }));
  const all = series.flatMap(({ points }) => points);
  if (all.length === 0) return "";
  const shaded = runs.length === 1 ? sparseStretches(runs[0]!.lines) : [];
  const canLog = isLog && all.some(({ y }) => y > 0);
  const options = { xLabel: "step", yLabel, isLog: canLog };
  return figure(title, curves(series, options, shaded));
}

function pointsOf(
  lines: readonly MetricsLine[],
  value: Chart["value"],
): CurvePoint[] {
  return lines.flatMap((line) => {
    // Files may lack a number, or hold null for one that was not finite.
    const y: unknown = value(line);
    return typeof y === "number" && Number.isFinite(y)
      ? [{ x: line.step, y }]
      : [];
  });
}

/** Steps that took the sparse path, from the first of each stretch to the one that ends it. */
function sparseStretches(lines: readonly MetricsLine[]): Stretch[] {
  const found: Stretch[] = [];
  let from: number | undefined;
  for (const { step, path } of lines) {
    if (path === "sparse") from ??= step;
    else if (from !== undefined) {
      found.push({ from, to: step });
      from = undefined;
    }
  }
  if (from !== undefined) found.push({ from, to: lines.at(-1)!.step });
  return found;
}

function pathCaption(runs: readonly RunFolder[]): string {
  return runs.length === 1 && sparseStretches(runs[0]!.lines).length > 0
    ? `<p class="quiet">Shaded: steps that took the sparse path.</p>`
    : "";
}

/** Which run took the sparse path when, for several runs; one shades its curves. */
function pathFigure(runs: readonly RunFolder[]): string {
  const rows = runs.map(({ name, lines }, n) => ({
    name,
    color: seriesColor(n),
    stretches: sparseStretches(lines),
  }));
  const isNeeded = runs.length > 1 &&
    rows.some(({ stretches }) => stretches.length > 0);
  if (!isNeeded) return "";
  const to = Math.max(...runs.map(({ lines }) => lines.at(-1)!.step));
  const svg = stretchRows(rows, { xLabel: "step", from: 0, to });
  return figure("steps that took the sparse path", svg);
}

/** Where the time went, a plot for each run. */
function times(runs: readonly RunFolder[]): string {
  const figures = runs.flatMap(({ name, lines }) => {
    const timed = lines.filter(({ ms }) => ms !== undefined);
    if (timed.length === 0) return [];
    const layers = TIMES.map(({ ms }, n) => ({
      points: average(pointsOf(timed, (line) => ms(line.ms)), COLUMNS),
      color: TIME_COLORS[n]!,
    }));
    const options = { xLabel: "step", yLabel: "ms a step" };
    return [figure(name, stackedAreas(layers, options))];
  });
  if (figures.length === 0) return "";
  return `<h2>Where the time of a step went</h2>
${legend(TIMES.map(({ what }) => what), TIME_COLORS)}
<div class="plots">${figures.join("\n")}</div>`;
}

/** How often features fire. */
function density(runs: readonly RunFolder[]): string {
  const series = runs.flatMap(({ logDensity }, n) => {
    if (!logDensity) return [];
    const values = [...logDensity].filter((value) => value > NEVER_FIRED);
    return values.length > 0 ? [{ values, color: seriesColor(n) }] : [];
  });
  if (series.length === 0) return "";
  const silent = runs.flatMap(({ name, logDensity }) =>
    logDensity
      ? [
        `${escape(name)}: ${formatCount(nSilent(logDensity))} of ${
          formatCount(logDensity.length)
        } features never fired`,
      ]
      : []
  );
  const svg = histograms(series, DENSITY_BINS, {
    xLabel: "log10 of the share of tokens",
    yLabel: "features",
  });
  return `<h2>How often features fire</h2>
<p class="quiet">${silent.join("; ")}.</p>
<div class="plots">${figure("features by firing density", svg)}</div>`;
}

function nSilent(logDensity: Float32Array): number {
  return logDensity.filter((value) => !(value > NEVER_FIRED)).length;
}

function figure(title: string, svg: string): string {
  return `<figure><figcaption>${escape(title)}</figcaption>${svg}</figure>`;
}

/** The settings side by side, those that differ first. */
function settings(runs: readonly RunFolder[]): string {
  const names = [
    ...new Set(runs.flatMap(({ settings }) => Object.keys(settings))),
  ];
  if (names.length === 0) return `<p class="quiet">None were kept.</p>`;
  const rows = names.map((name) => {
    const cells = runs.map(({ settings }) => cellOf(settings[name]));
    const differs = cells.some((cell) => cell !== cells[0]);
    return { differs, row: [differs ? `${name} *` : name, ...cells] };
  });
  const first = rows.filter(({ differs }) => differs);
  const rest = rows.filter(({ differs }) => !differs);
  const note = first.length > 0
    ? `<p class="quiet">* differs between the runs</p>`
    : "";
  return note + table(
    ["setting", ...runs.map(({ name }) => name)],
    [...first, ...rest].map(({ row }) => row),
  );
}

function cellOf(value: unknown): string {
  if (value === undefined) return "";
  return typeof value === "string" ? value : JSON.stringify(value);
}
