import { equal, match, ok } from "node:assert/strict";
import { curve, histogram } from "../../tasks/plots.ts";
import {
  type QuickstartReport,
  reportPage,
} from "../../tasks/quickstart_report.ts";

/** What a model may say, and what must not become part of the page. */
const HOSTILE = `<script>alert("x")</script> & 'so on'`;
const ESCAPED =
  "&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt; &amp; &#39;so on&#39;";

const REPORT: QuickstartReport = {
  gpu: HOSTILE,
  command: "./ocs quickstart --seed 1",
  seconds: 61,
  stages: [{ stage: "train", seconds: 60 }],
  evaluation: [{ measure: "FVU", value: "0.08", meaning: HOSTILE }],
  steps: [0, 10, 20].map((step) => ({
    step,
    loss: 100 / (step + 1),
    L0: 90 - step,
    fvu: 0.5 / (step + 1),
  })),
  logDensity: [-3, -2.5, -2.5, -1],
  unsteered: { rate: 0.015, perplexity: 1.9 },
  concepts: [{
    concept: "batman",
    feature: 94,
    f1: 0.614,
    strength: 2.5,
    rate: 0.95,
    perplexity: 3.25,
  }],
  samples: [{
    question: HOSTILE,
    replies: [{ steering: "unsteered", text: HOSTILE }],
  }],
};

Deno.test("reportPage() shows every part, and what the model said as text", () => {
  const page = reportPage(REPORT);
  ok(!page.includes("<script"), "nothing of a reply is markup");
  equal(page.split(ESCAPED).length - 1, 4, "GPU, meaning, question and reply");
  equal(page.split("<svg").length - 1, 4, "three curves and a histogram");
  match(page, /batman.*94.*0\.614.*2\.5x.*95%.*3\.25/s);
  match(page, /Unsteered replies: concept rate \d+%, perplexity 1\.90/);
});

Deno.test("reportPage() asks nothing of a network", () => {
  const page = reportPage(REPORT);
  const addresses = page.matchAll(/https?:\/\/[^"'\s<]*/g);
  for (const [address] of addresses) {
    equal(address, "http://www.w3.org/2000/svg", "the name of SVG's elements");
  }
  ok(!/<(?:link|img|iframe|script)\b|@import|url\(/.test(page));
});

Deno.test("curve() draws a line over finite points, and those above 0 when it is logarithmic", () => {
  const points = [1, 10, 0, NaN, 100].map((y, x) => ({ x, y }));
  const labels = { xLabel: "step", yLabel: "loss" };
  const vertices = (svg: string): number =>
    (/aria-label="line"><path d="(M[^"]+)"/.exec(svg)?.[1] ?? "").split(/[ML]/)
      .length - 1;
  const linear = curve(points, labels);
  match(linear, /^<svg [^>]*xmlns="http:\/\/www\.w3\.org\/2000\/svg"/);
  match(linear, /step/);
  match(linear, /loss/);
  equal(vertices(linear), 4);
  equal(vertices(curve(points, { ...labels, isLog: true })), 3);
  ok(!linear.includes("NaN"));
});

Deno.test("histogram() draws a bar for each interval with values", () => {
  const labels = { xLabel: "density", yLabel: "features" };
  const svg = histogram([-3, -2.9, -1, -1, 0], 3, labels);
  match(svg, /^<svg /);
  match(svg, /density/);
  ok(/<rect [^>]*height="[1-9]/.test(svg), svg);
  ok(!svg.includes("NaN"));
});
