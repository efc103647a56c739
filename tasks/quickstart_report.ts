/**
 * The quickstart's results as a page that opens without a network.
 * @module
 */
import type { EvalReport } from "./eval_report.ts";
import { curve, histogram } from "./plots.ts";

/** A step of training, as it is plotted. */
export interface ReportStep {
  readonly step: number;
  readonly loss: number;
  readonly L0: number;
  /** Of the step's batch, against the mean of the training data. */
  readonly fvu: number;
}

/** One concept's row. */
export interface ReportConcept {
  readonly concept: string;
  readonly feature: number;
  /** How well the feature tells the concept's tokens from others, 0 to 1. */
  readonly f1: number;
  /** In multiples of the feature's maximum. */
  readonly strength: number;
  /** Share of steered replies with a keyword of the concept, on questions that the strength was not chosen on. */
  readonly rate: number;
  /** Of the steered replies, under the unsteered model. */
  readonly perplexity: number;
}

/** A question, and what the model said. */
export interface ReportSample {
  readonly question: string;
  /** Replies by what steered them; `unsteered` first. */
  readonly replies: readonly {
    readonly steering: string;
    readonly text: string;
  }[];
}

/** Everything the page shows. */
export interface QuickstartReport {
  readonly gpu: string;
  readonly command: string;
  readonly seconds: number;
  readonly stages: readonly {
    readonly stage: string;
    readonly seconds: number;
  }[];
  readonly evaluation: readonly {
    readonly measure: string;
    readonly value: string;
    readonly meaning: string;
  }[];
  readonly steps: readonly ReportStep[];
  /** log10 of the share of tokens on which each living feature fires. */
  readonly logDensity: readonly number[];
  readonly unsteered: { readonly rate: number; readonly perplexity: number };
  readonly concepts: readonly ReportConcept[];
  readonly samples: readonly ReportSample[];
}

const STYLE = `
body { font: 15px/1.5 system-ui, sans-serif; color: #1c2b33; max-width: 76rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.plots { display: flex; flex-wrap: wrap; gap: 1rem; } figure { margin: 0; }
table { border-collapse: collapse; } th, td { text-align: left; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid #d9e1e5; vertical-align: top; }
td.number, th.number { text-align: right; } .quiet { color: #5b6b75; }
@media (prefers-color-scheme: dark) { body { background: #12191d; color: #dde6ea; } th, td { border-color: #33424a; } .quiet { color: #93a4ad; } }
`;

/** The evaluation's numbers with what they mean. */
export function evaluationRows(
  { vectors, loss }: EvalReport,
): QuickstartReport["evaluation"] {
  const of = `on ${vectors.nTokens} vectors that were held out`;
  const rows = [
    {
      measure: "FVU",
      value: vectors.fvu.toFixed(4),
      meaning: `variance unexplained, against their mean, ${of}`,
    },
    {
      measure: "L0",
      value: vectors.L0.toFixed(2),
      meaning: `features that fire on a token, ${of}`,
    },
    {
      measure: "dead",
      value: `${(100 * vectors.deadShare).toFixed(2)}%`,
      meaning: `features that never fire ${of}`,
    },
  ];
  if (!loss) return rows;
  const nats = `nats a token over ${loss.nTokens} tokens`;
  return [
    ...rows,
    {
      measure: "cross-entropy",
      value: loss.ceModel.toFixed(4),
      meaning: `of the model, ${nats}`,
    },
    {
      measure: "with the SAE",
      value: loss.ceSae.toFixed(4),
      meaning: "its reconstruction in the stream's place",
    },
    {
      measure: "recovered, zeros",
      value: loss.recoveredFromZero.toFixed(4),
      meaning: "of what zeros in the stream's place lose",
    },
    {
      measure: "recovered, mean",
      value: loss.recoveredFromMean.toFixed(4),
      meaning: "of what the mean in the stream's place loses",
    },
  ];
}

/** The page. */
export function reportPage(report: QuickstartReport): string {
  const { command, gpu, seconds, stages, unsteered } = report;
  const times = stages.map((s) =>
    `${escape(s.stage)} ${s.seconds.toFixed(0)} s`
  );
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Open Concept Steering: quickstart</title><style>${STYLE}</style></head><body>
<h1>From text to a steered model</h1>
<p class="quiet">${escape(command)} on ${escape(gpu)}, ${
    seconds.toFixed(0)
  } s: ${times.join(", ")}</p>
<h2>The sparse autoencoder</h2>
${
    table(
      ["measure", "value", "meaning"],
      report.evaluation.map((row) => [row.measure, row.value, row.meaning]),
    )
  }
<div class="plots">${
    plots(report).map((svg) => `<figure>${svg}</figure>`).join("\n")
  }</div>
<h2>Concepts: the feature that knows each, and what steering by it does</h2>
<p class="quiet">Unsteered replies: concept rate ${
    percent(unsteered.rate)
  }, perplexity ${
    unsteered.perplexity.toFixed(2)
  }. Strength is in multiples of the feature's maximum activation.</p>
${conceptTable(report.concepts)}
<h2>The same question, unsteered and steered</h2>
${report.samples.map(sampleTable).join("\n")}
</body></html>
`;
}

/** The curves of the training, and how often features fire. */
function plots({ steps, logDensity }: QuickstartReport): string[] {
  const overSteps = (yLabel: string, y: (step: ReportStep) => number) =>
    curve(steps.map((step) => ({ x: step.step, y: y(step) })), {
      xLabel: "step",
      yLabel,
      isLog: true,
    });
  return [
    overSteps("loss", ({ loss }) => loss),
    overSteps("L0", ({ L0 }) => L0),
    overSteps("FVU", ({ fvu }) => fvu),
    histogram(logDensity, 40, {
      xLabel: "log10 of firing density",
      yLabel: "features",
    }),
  ];
}

function conceptTable(concepts: readonly ReportConcept[]): string {
  return table(
    [
      "concept",
      "feature",
      "F1",
      "strength",
      "steered concept rate",
      "perplexity",
    ],
    concepts.map((row) => [
      row.concept,
      String(row.feature),
      row.f1.toFixed(3),
      `${row.strength}x`,
      percent(row.rate),
      row.perplexity.toFixed(2),
    ]),
  );
}

function sampleTable({ question, replies }: ReportSample): string {
  return `<h3>${escape(question)}</h3>${
    table(["steered by", "reply"], replies.map((r) => [r.steering, r.text]))
  }`;
}

/** Columns whose cells all start with a digit are set to the right. */
function table(
  heading: readonly string[],
  rows: readonly (readonly string[])[],
): string {
  const isNumber = heading.map((_, column) =>
    rows.every((row) => /^[\d.-]+[x%]?$/.test(row[column] ?? ""))
  );
  const cells = (row: readonly string[], tag: "td" | "th"): string =>
    row.map((cell, column) =>
      `<${tag}${isNumber[column] ? ` class="number"` : ""}>${
        escape(cell)
      }</${tag}>`
    ).join("");
  return `<table><thead><tr>${cells(heading, "th")}</tr></thead><tbody>${
    rows.map((row) => `<tr>${cells(row, "td")}</tr>`).join("\n")
  }</tbody></table>`;
}

function percent(share: number): string {
  return `${(100 * share).toFixed(0)}%`;
}

function escape(text: string): string {
  const entities: Record<string, string> = {
    "&": "&amp;",
    "<": "&lt;",
    ">": "&gt;",
    '"': "&quot;",
    "'": "&#39;",
  };
  return text.replace(/[&<>"']/g, (character) => entities[character]!);
}
