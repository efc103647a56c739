/**
 * What is best of many runs: two measures against each other, and the front of those that none beats in both.
 * @module
 */
import * as Plot from "@observablehq/plot";
import { DOMParser } from "linkedom";

/** A run in the plane of two measures; fewer on the x axis is better. */
export interface ParetoPoint {
  readonly x: number;
  readonly y: number;
  /** Shown beside the point. */
  readonly label: string;
}

/** Labels of a plot, and which way is better. */
export interface ParetoOptions {
  readonly xLabel: string;
  readonly yLabel: string;
  readonly better: "lower" | "higher";
}

const WIDTH = 560;
const HEIGHT = 360;
const COLOR = "#2f6f8f";

/** The points that no other beats: none has at most their x and a better y. In the order of x. */
export function paretoFront(
  points: readonly ParetoPoint[],
  better: ParetoOptions["better"],
): ParetoPoint[] {
  const cost = ({ y }: ParetoPoint): number => better === "lower" ? y : -y;
  const front: ParetoPoint[] = [];
  const sorted = points.toSorted((a, b) => a.x - b.x || cost(a) - cost(b));
  for (const point of sorted) {
    const best = front.at(-1);
    if (best === undefined || cost(point) < cost(best)) front.push(point);
  }
  return front;
}

/** Points and their front, as an `<svg>` element's text; the x axis is logarithmic where all are above 0. */
export function paretoPlot(
  points: readonly ParetoPoint[],
  { xLabel, yLabel, better }: ParetoOptions,
): string {
  const document = new DOMParser().parseFromString(
    "<html></html>",
    "text/html",
  );
  const drawn = points.filter(({ x, y }) =>
    Number.isFinite(x) && Number.isFinite(y)
  );
  const at = { x: "x", y: "y" } as const;
  const svg = Plot.plot({
    document,
    width: WIDTH,
    height: HEIGHT,
    marginRight: 90,
    x: {
      label: xLabel,
      grid: true,
      ...(drawn.every(({ x }) => x > 0) &&
        { type: "log" as const, tickFormat: "~g" }),
    },
    y: { label: yLabel, grid: true },
    marks: [
      Plot.line(paretoFront(drawn, better), {
        ...at,
        stroke: COLOR,
        strokeWidth: 1.5,
      }),
      Plot.dot(drawn, { ...at, fill: COLOR, r: 3.5 }),
      Plot.text(drawn, {
        ...at,
        text: "label",
        dx: 7,
        dy: -6,
        textAnchor: "start",
        fill: "currentColor",
      }),
    ],
  });
  svg.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  return svg.outerHTML;
}
