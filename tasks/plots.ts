/**
 * Plots as SVG text, drawn without a browser.
 * @module
 */
import * as Plot from "@observablehq/plot";
import { DOMParser } from "linkedom";

/** A point of a curve. */
export interface CurvePoint {
  readonly x: number;
  readonly y: number;
}

/** Labels and scale of a plot. */
export interface PlotOptions {
  readonly xLabel: string;
  readonly yLabel: string;
  /** Whether the y axis is logarithmic; points at or below 0 are left out then. */
  readonly isLog?: boolean;
}

/** A curve beside others. */
export interface CurveSeries {
  readonly points: readonly CurvePoint[];
  /** {@link seriesColor} of its number. */
  readonly color: string;
}

/** A stretch of the x axis, both ends included. */
export interface Stretch {
  readonly from: number;
  readonly to: number;
}

/** Stretches of a row, as of one run's sparse steps. */
export interface StretchRow {
  readonly name: string;
  readonly color: string;
  readonly stretches: readonly Stretch[];
}

/** How often values occur, beside others. */
export interface HistogramSeries {
  readonly values: readonly number[];
  readonly color: string;
}

/** Width of a plot in pixels. */
export const PLOT_WIDTH = 380;
const HEIGHT = 220;
const ROW_HEIGHT = 22;
const COLOR = "#3b83a8";
const SHADE = "#8a9aa3";
/** Told apart on white and on black, and with the usual color blindnesses. */
const COLORS = [
  COLOR,
  "#d1602b",
  "#3d9a57",
  "#9a6bc4",
  "#c2a01e",
  "#c94f6d",
  "#4f9fb0",
  "#8f6d48",
] as const;

/** Color of the n-th thing that is shown beside others, from 0. */
export function seriesColor(n: number): string {
  return COLORS[n % COLORS.length]!;
}

/** A line over points, as an `<svg>` element's text. */
export function curve(
  points: readonly CurvePoint[],
  options: PlotOptions,
): string {
  return curves([{ points, color: COLOR }], options);
}

/**
 * Lines over points, one for each series, as an `<svg>` element's text.
 * @param shaded Stretches of the x axis behind the lines.
 */
export function curves(
  series: readonly CurveSeries[],
  { xLabel, yLabel, isLog = false }: PlotOptions,
  shaded: readonly Stretch[] = [],
): string {
  const lines = series.map(({ points, color }) => {
    const drawn = points.filter(({ y }) =>
      Number.isFinite(y) && (!isLog || y > 0)
    );
    return Plot.line(drawn, {
      x: "x",
      y: "y",
      stroke: color,
      strokeWidth: 1.5,
    });
  });
  return draw({
    x: { label: xLabel, tickFormat: shortTick },
    y: {
      label: yLabel,
      grid: true,
      // Long numbers have no room at the side.
      tickFormat: isLog ? "~g" : shortTick,
      ...(isLog && { type: "log" as const }),
    },
    marks: [
      ...(shaded.length > 0
        ? [
          Plot.rectX(shaded, {
            x1: "from",
            x2: "to",
            fill: SHADE,
            fillOpacity: 0.16,
          }),
        ]
        : []),
      ...lines,
    ],
  });
}

/**
 * Areas on top of each other, as an `<svg>` element's text.
 * @param layers From the lowest; all with the same x.
 */
export function stackedAreas(
  layers: readonly CurveSeries[],
  { xLabel, yLabel }: PlotOptions,
): string {
  const below = new Map<number, number>();
  const areas = layers.map(({ points, color }) => {
    const drawn = points.map(({ x, y }) => {
      const y1 = below.get(x) ?? 0;
      below.set(x, y1 + y);
      return { x, y1, y2: y1 + y };
    });
    return Plot.areaY(drawn, { x: "x", y1: "y1", y2: "y2", fill: color });
  });
  return draw({
    x: { label: xLabel, tickFormat: shortTick },
    y: { label: yLabel, grid: true, zero: true, tickFormat: shortTick },
    marks: areas,
  });
}

/** Rows of bars over the x axis, as an `<svg>` element's text. */
export function stretchRows(
  rows: readonly StretchRow[],
  { xLabel, from, to }: Stretch & { readonly xLabel: string },
): string {
  const bars = rows.flatMap(({ color, stretches }, row) =>
    stretches.map((stretch) => ({ ...stretch, row, color }))
  );
  return draw({
    height: 50 + ROW_HEIGHT * rows.length,
    x: { label: xLabel, domain: [from, to], tickFormat: shortTick },
    y: {
      type: "band",
      domain: rows.map((_, row) => row),
      axis: null,
      padding: 0.2,
    },
    marks: [
      Plot.barX(bars, { x1: "from", x2: "to", y: "row", fill: "color" }),
      Plot.frame({ strokeOpacity: 0.2 }),
    ],
  });
}

/** How often values fall into each of `bins` equal intervals, as an `<svg>` element's text. */
export function histogram(
  values: readonly number[],
  bins: number,
  options: PlotOptions,
): string {
  return histograms([{ values, color: COLOR }], bins, options);
}

/**
 * How often the values of several series fall into each of `bins` equal
 * intervals, as an `<svg>` element's text.
 * @param series All values finite.
 */
export function histograms(
  series: readonly HistogramSeries[],
  bins: number,
  options: PlotOptions,
): string {
  const isOnly = series.length === 1;
  const [low, high] = extent(series.flatMap(({ values }) => [...values]));
  const width = (high - low) / bins || 1;
  const bars = (values: readonly number[]) => {
    const counts = new Array<number>(bins).fill(0);
    for (const value of values) {
      counts[Math.min(bins - 1, Math.floor((value - low) / width))]! += 1;
    }
    return counts.map((y, bin) => ({
      x1: low + bin * width,
      x2: low + (bin + 1) * width,
      y,
    })).filter(({ y }) => y > 0);
  };
  return draw({
    x: { label: options.xLabel },
    y: { label: options.yLabel, grid: true, tickFormat: shortTick },
    marks: [
      ...series.map(({ values, color }) =>
        Plot.rectY(bars(values), {
          x1: "x1",
          x2: "x2",
          y: "y",
          inset: 0.5,
          insetBottom: 0,
          fill: color,
          fillOpacity: isOnly ? 1 : 0.25,
          ...(isOnly ? {} : { stroke: color, strokeWidth: 1 }),
        })
      ),
      Plot.ruleY([0]),
    ],
  });
}

/** A number in few signs: 0.05, 250, 12k. */
function shortTick(value: number): string {
  const size = Math.abs(value);
  if (size >= 1000) return `${Number((value / 1000).toPrecision(3))}k`;
  if (size > 0 && size < 1e-3) return value.toExponential().replace("e-", "e−");
  return String(Number(value.toPrecision(4)));
}

function extent(values: readonly number[]): [number, number] {
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) {
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  return low <= high ? [low, high] : [0, 1];
}

function draw(options: Plot.PlotOptions): string {
  const document = new DOMParser().parseFromString(
    "<html></html>",
    "text/html",
  );
  const svg = Plot.plot({
    width: PLOT_WIDTH,
    height: HEIGHT,
    marginLeft: 40,
    document,
    ...options,
  });
  svg.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  return svg.outerHTML;
}
