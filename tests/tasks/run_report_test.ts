import { equal, match, ok } from "node:assert/strict";
import { join } from "node:path";
import { saveFeatureMeasurements } from "../../core/sae_save.ts";
import { writeAtomic } from "../../core/files.ts";
import type { MetricsLine } from "../../train/metrics_line.ts";
import { metricsLine } from "./metrics_lines.ts";
import { runTask, scratchFolder } from "./run_task.ts";

/** What a folder may be called, and what must not become part of the page. */
const HOSTILE = `<script>alert('x')&`;

interface Made {
  readonly lines?: readonly MetricsLine[];
  readonly lambda?: number;
  /** What is behind the lines. */
  readonly tail?: string;
}

const LINES = Array.from({ length: 100 }, (_, step) => metricsLine(step));

/** A folder as train leaves it. */
async function makeRun(
  path: string,
  { lines = LINES, lambda = 1, tail = "" }: Made = {},
): Promise<void> {
  Deno.mkdirSync(path);
  const write = (file: string, text: string): void =>
    Deno.writeTextFileSync(join(path, file), text);
  const text = lines.map((line) => `${JSON.stringify(line)}\n`).join("");
  write("metrics.jsonl", text + tail);
  const settings = { lambda, d_sae: 4, residuals: HOSTILE, skip_tokens: [1] };
  write("train.json", JSON.stringify(settings));
  const heldOut = { nTokens: 200, fvu: 0.1234, L0: 17.5, deadShare: 0.25 };
  const manifest = { kind: "sae", fingerprint: "0", done: true, heldOut };
  write("manifest.json", JSON.stringify(manifest));
  const density = Float32Array.of(0.5, 0.1, 0.01, 0);
  await saveFeatureMeasurements(
    (file, content) => writeAtomic(join(path, file), content),
    { featureMax: density, density },
  );
}

const count = (text: string, part: string): number =>
  text.split(part).length - 1;

Deno.test("report draws a run: results, curves, times, densities and settings", async () => {
  using folder = scratchFolder();
  const cwd = folder.path;
  await makeRun(join(cwd, HOSTILE));
  const run = await runTask(["report", HOSTILE], { cwd });
  equal(run.code, 0, run.stderr);
  equal(run.stderr, "");
  match(
    run.stdout,
    /: 100 measured steps, up to 99\nreport: .*\/report\.html\n$/,
  );
  const page = Deno.readTextFileSync(join(cwd, "report.html"));
  // AuxK and resampling were not logged.
  equal(count(page, "<svg"), 10 + 1 + 1, "curves, times, densities");
  match(page, /complete<\/td>.*>100<.*>0\.1234<.*>17\.50<.*>25\.00%<.*>1</);
  match(page, /1 of 4 features never fired/);
  match(page, /Shaded: steps that took the sparse path/);
  match(page, /<td>skip_tokens<\/td><td>\[1\]<\/td>/);
  ok(!page.includes("<script"), "a name is no markup");
  ok(count(page, "&lt;script&gt;alert(&#39;x&#39;)&amp;") >= 4, "it is text");
  for (const [address] of page.matchAll(/https?:\/\/[^"'\s<]*/g)) {
    equal(address, "http://www.w3.org/2000/svg", "the name of SVG's elements");
  }
  ok(!page.includes("NaN") && !page.includes("undefined"));
});

Deno.test("report draws several runs over each other, and says what differs", async () => {
  using folder = scratchFolder();
  const cwd = folder.path;
  await makeRun(join(cwd, "a"));
  const aux = LINES.map((line) => ({ ...line, auxLoss: 0.5, resampled: 1 }));
  await makeRun(join(cwd, "b"), { lambda: 2, lines: aux });
  const words = ["report", "a", "b", "--out=both.html"] as const;
  const run = await runTask(words, { cwd });
  equal(run.code, 0, run.stderr);
  const page = Deno.readTextFileSync(join(cwd, "both.html"));
  equal(count(page, "<svg"), 12 + 1 + 2 + 1, "curves, paths, times, densities");
  const [loss] = /<figcaption>loss<.*?<\/svg>/s.exec(page)!;
  equal(count(loss, `aria-label="line"`), 2);
  match(
    page,
    /<td>lambda \*<\/td><td class="number">1<\/td><td class="number">2<\/td>|<td>lambda \*<\/td><td>1<\/td><td>2<\/td>/,
  );
  match(page, /<td>d_sae<\/td>/);
  equal(count(page, "Shaded:"), 0);
});

Deno.test("report takes a run that has only begun, and one of an older version", async () => {
  using folder = scratchFolder();
  const cwd = folder.path;
  Deno.mkdirSync(join(cwd, "begun"));
  Deno.writeTextFileSync(
    join(cwd, "begun", "metrics.jsonl"),
    `{"step":0,"loss":5,"mse":4,"L0":0,"fvu":null}\n`,
  );
  const run = await runTask(["report", "begun"], { cwd });
  equal(run.code, 0, run.stderr);
  const page = Deno.readTextFileSync(join(cwd, "report.html"));
  equal(count(page, "<svg"), 2, "loss and L0");
  match(page, /None were kept/);
  ok(!page.includes("NaN") && !page.includes("undefined"));
});

Deno.test("report counts damaged lines and goes on", async () => {
  using folder = scratchFolder();
  const cwd = folder.path;
  await makeRun(join(cwd, "cut"), { tail: `nonsense\n{"step": 100, "lo` });
  const run = await runTask(["report", "cut"], { cwd });
  equal(run.code, 0, run.stderr);
  equal(run.stderr, `"cut": 2 damaged lines of the metrics are left out\n`);
  const page = Deno.readTextFileSync(join(cwd, "report.html"));
  match(page, /cut: 2 damaged lines of the metrics are left out/);
});

Deno.test("report keeps a spike of a long run", async () => {
  using folder = scratchFolder();
  const cwd = folder.path;
  const lines = Array.from({ length: 50_000 }, (_, step) => ({
    ...metricsLine(step),
    loss: step === 31_415 ? 1e6 : 1,
  }));
  await makeRun(join(cwd, "long"), { lines });
  const run = await runTask(["report", "long"], { cwd });
  equal(run.code, 0, run.stderr);
  const page = Deno.readTextFileSync(join(cwd, "report.html"));
  ok(page.length < 2_000_000, `${page.length} bytes`);
  const [, path] =
    /<figcaption>loss<.*?aria-label="line"[^>]*><path d="([^"]+)"/s
      .exec(page)!;
  const ys = path!.split(/[ML]/).slice(1).map((point) =>
    Number(point.split(",")[1])
  );
  const [top, bottom] = [Math.min(...ys), Math.max(...ys)];
  equal(ys.filter((y) => y === top).length, 1);
  ok(bottom - top > 100, "the spike has the height of the plot");
});

Deno.test("report refuses what is no run, in one line", async () => {
  using folder = scratchFolder();
  const cwd = folder.path;
  Deno.mkdirSync(join(cwd, "empty"));
  Deno.mkdirSync(join(cwd, "early"));
  Deno.writeTextFileSync(join(cwd, "early", "metrics.jsonl"), `{"st`);
  await makeRun(join(cwd, "broken"));
  Deno.writeTextFileSync(join(cwd, "broken", "train.json"), "{");
  for (
    const [words, message] of [
      [[], /Cannot report: expected the folder of a run: got none/],
      [["missing"], /Cannot open folder ".*missing": no such file or folder/],
      [
        ["empty"],
        /Cannot report on ".*empty": expected metrics\.jsonl, as train writes it: got none/,
      ],
      [
        ["early"],
        /Cannot report on ".*early": expected at least one step in metrics\.jsonl: got 1 damaged/,
      ],
      [["broken"], /Cannot read ".*broken\/train\.json"/],
      [
        ["broken/train.json"],
        /Cannot open folder .*: expected a folder: got a file/,
      ],
    ] as const
  ) {
    const run = await runTask(["report", ...words], { cwd });
    equal(run.code, 1);
    match(run.stderr, message);
    match(run.stderr, /^error: [^\n]+\n$/);
    ok(![...Deno.readDirSync(cwd)].some(({ name }) => name === "report.html"));
  }
});
