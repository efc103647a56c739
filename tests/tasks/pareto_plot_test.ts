import { deepEqual, equal, match } from "node:assert/strict";
import { paretoFront, paretoPlot } from "../../tasks/pareto_plot.ts";

const POINTS = [
  { x: 30, y: 0.1, label: "c" },
  { x: 10, y: 0.3, label: "a" },
  { x: 20, y: 0.35, label: "beaten" },
  { x: 10, y: 0.4, label: "beaten at the same x" },
  { x: 20, y: 0.2, label: "b" },
  { x: 40, y: 0.1, label: "as good with more" },
];

Deno.test("paretoFront() keeps the points that no other beats, in the order of x", () => {
  const labels = (better: "lower" | "higher"): string[] =>
    paretoFront(POINTS, better).map(({ label }) => label);
  deepEqual(labels("lower"), ["a", "b", "c"]);
  deepEqual(labels("higher"), ["beaten at the same x"]);
  deepEqual(paretoFront([], "lower"), []);
});

Deno.test("paretoPlot() draws every point with its label, and the front as a line", () => {
  const options = { xLabel: "L0", yLabel: "FVU", better: "lower" } as const;
  const svg = paretoPlot(
    [...POINTS, { x: NaN, y: 1, label: "nowhere" }],
    options,
  );
  match(svg, /^<svg [^>]*xmlns="http:\/\/www\.w3\.org\/2000\/svg"/);
  equal(svg.match(/<circle /g)?.length, POINTS.length);
  equal(svg.includes("nowhere"), false);
  const [, path = ""] = /aria-label="line"[^>]*><path d="([^"]*)"/.exec(svg) ??
    [];
  equal(path.split(/[ML]/).length - 1, 3); // a, b and c
  // An L0 of 0 has no logarithm; the axis is linear then.
  equal(
    paretoPlot([{ x: 0, y: 1, label: "" }, { x: 5, y: 1, label: "" }], options)
      .match(/<circle /g)?.length,
    2,
  );
});
