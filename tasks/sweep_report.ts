/**
 * A sweep as a page that opens without a network.
 * @module
 */
import { paretoPlot, type ParetoPoint } from "./pareto_plot.ts";
import { axesOf, resultCells, type SweepResult } from "./sweep_results.ts";

const STYLE = `
body { font: 15px/1.5 system-ui, sans-serif; color: #1c2b33; max-width: 76rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.plots { display: flex; flex-wrap: wrap; gap: 1rem; } figure { margin: 0; }
table { border-collapse: collapse; } th, td { text-align: right; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid #d9e1e5; }
.quiet { color: #5b6b75; }
@media (prefers-color-scheme: dark) { body { background: #12191d; color: #dde6ea; } th, td { border-color: #33424a; } .quiet { color: #93a4ad; } }
`;

/** The page: Pareto plots and the table of all runs. */
export function sweepReport(
  name: string,
  results: readonly SweepResult[],
): string {
  const { heading, rows } = resultCells(results);
  const cells = (tag: "th" | "td", row: readonly string[]): string =>
    `<tr>${
      row.map((cell) => `<${tag}>${escape(cell)}</${tag}>`).join("")
    }</tr>`;
  const failed = results.filter(({ error }) => error !== null);
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>${
    escape(name)
  }</title><style>${STYLE}</style></head><body>
<h1>${escape(name)}</h1>
<p class="quiet">Every point is a run, with its ${
    escape(axesOf(results).join(", "))
  } beside it; the line joins those that no other beats in both measures.</p>
<div class="plots">${plots(results)}</div>
<h2>Runs</h2>
<table>${cells("th", heading)}${
    rows.map((row) => cells("td", row)).join("\n")
  }</table>
${failed.length === 0 ? "" : "<h2>Failed</h2>"}
${
    failed.map(({ name, error }) =>
      `<p><b>${escape(name)}</b>: ${escape(error ?? "")}</p>`
    ).join("\n")
  }
</body></html>
`;
}

function plots(results: readonly SweepResult[]): string {
  const points = (
    measure: (result: SweepResult) => number | null | undefined,
  ): ParetoPoint[] =>
    results.flatMap((result) => {
      const y = measure(result);
      if (result.status !== "complete" || result.L0 === null) return [];
      const label = Object.values(result.values).join(" ");
      return typeof y === "number" ? [{ x: result.L0, y, label }] : [];
    });
  const fvu = points(({ fvu }) => fvu);
  const recovered = points(({ loss }) => loss?.recoveredFromZero);
  const xLabel = "L0, features a vector";
  const drawn = [
    fvu.length > 0 &&
    paretoPlot(fvu, { xLabel, yLabel: "FVU", better: "lower" }),
    recovered.length > 0 &&
    paretoPlot(recovered, {
      xLabel,
      yLabel: "cross-entropy recovered",
      better: "higher",
    }),
  ];
  return drawn.filter(Boolean).map((svg) => `<figure>${svg}</figure>`).join("");
}

function escape(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;")
    .replaceAll('"', "&quot;");
}
