/**
 * The quickstart's results as a page that opens without a network.
 * @module
 */
import type { EvalReport } from "./eval_report.ts";
import { escape, page, table } from "./html.ts";
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
  return page(
    "Open Concept Steering: quickstart",
    `<h1>From text to a steered model</h1>
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
${report.samples.map(sampleTable).join("\n")}`,
  );
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

function percent(share: number): string {
  return `${(100 * share).toFixed(0)}%`;
}
