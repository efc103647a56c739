/**
 * Plots as SVG text, drawn without a browser.
 * @module
 */
import * as Plot from "@observablehq/plot";
import { DOMParser } from "linkedom";

/** A curve over the steps of a run. */
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

const WIDTH = 360;
const HEIGHT = 220;
const COLOR = "#2f6f8f";

/** A line over points, as an `<svg>` element's text. */
export function curve(
  points: readonly CurvePoint[],
  options: PlotOptions,
): string {
  const drawn = points.filter(({ y }) =>
    Number.isFinite(y) && (!options.isLog || y > 0)
  );
  return draw({
    x: { label: options.xLabel },
    y: {
      label: options.yLabel,
      grid: true,
      ...(options.isLog && { type: "log" as const, tickFormat: "~g" }),
    },
    marks: [
      Plot.line(drawn, { x: "x", y: "y", stroke: COLOR, strokeWidth: 1.5 }),
    ],
  });
}

/** How often values fall into each of `bins` equal intervals, as an `<svg>` element's text. */
export function histogram(
  values: readonly number[],
  bins: number,
  options: PlotOptions,
): string {
  return draw({
    x: { label: options.xLabel },
    y: { label: options.yLabel, grid: true },
    marks: [
      Plot.rectY([...values], {
        ...Plot.binX({ y: "count" }, {
          x: (value: number) => value,
          thresholds: bins,
        }),
        fill: COLOR,
      }),
      Plot.ruleY([0]),
    ],
  });
}

function draw(options: Plot.PlotOptions): string {
  const document = new DOMParser().parseFromString(
    "<html></html>",
    "text/html",
  );
  const svg = Plot.plot({ width: WIDTH, height: HEIGHT, document, ...options });
  svg.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  return svg.outerHTML;
}
