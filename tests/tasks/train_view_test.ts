import { deepEqual, equal, match, ok } from "node:assert/strict";
import type { ProgressOutput } from "../../tasks/progress.ts";
import { Sparkline } from "../../tasks/sparkline.ts";
import { TrainView } from "../../tasks/train_view.ts";
import { metricsLine } from "./metrics_lines.ts";
import { Screen } from "./screen.ts";

/** Shows steps, a second apart. */
function show(view: TrainView, screen: Screen, steps: readonly number[]): void {
  for (const step of steps) {
    screen.ms += 1000;
    view.update(metricsLine(step));
  }
}

Deno.test("TrainView draws its lines in place", () => {
  const screen = new Screen(100);
  using view = new TrainView({ steps: 200 }, screen);
  show(view, screen, [0, 24, 49, 99]);
  const lines = screen.text.split("\n");
  deepEqual(lines, [
    "train [##########----------] 50 % 100/200 steps  25.0 steps/s  4.0 s left",
    `loss 1.000 ${"█▃▂▁".padEnd(14)}  L0 7.339 ${
      "█▄▃▁".padEnd(14)
    }  FVU 0.0100  dead 9.9 %`,
    "λ 1.000  lr 1.00e-3  gradient 0.02000  34,000 tokens/s  sparse path",
    "step 30.00 ms: load 1 %  host 4 %  GPU 90 %",
    "",
  ]);
  equal(screen.column, 0);
});

Deno.test("TrainView redraws at most ten times a second, each time in one piece that clears nothing first", () => {
  const screen = new Screen(100);
  using view = new TrainView({ steps: 200 }, screen);
  for (let step = 0; step < 100; step++) {
    screen.ms += 10;
    view.update(metricsLine(step));
  }
  equal(screen.written.length, 10);
  for (const piece of screen.written.slice(1)) {
    ok(piece.startsWith("\x1b[4A\rtrain "), JSON.stringify(piece));
  }
});

Deno.test("TrainView breaks no line of a narrow or low terminal, nor one that is made narrower", () => {
  for (const width of [2, 10, 40, 79]) {
    const screen = new Screen(width);
    using view = new TrainView({ steps: 200 }, screen);
    show(view, screen, [0, 10, 20]);
    const lines = screen.text.split("\n");
    equal(lines.length, 5, screen.text);
    for (const line of lines) ok(line.length < width);
  }
  const low = new Screen(80, 3);
  using view = new TrainView({ steps: 200 }, low);
  show(view, low, [0, 10, 20, 30]);
  equal(low.text.split("\n").length, 3, low.text);
  match(low.text, /^train .* 31\/200 steps/);
});

Deno.test("TrainView leaves out the bar and the courses before a number", () => {
  const of = (width: number): string => {
    const screen = new Screen(width);
    using view = new TrainView({ steps: 200_000 }, screen);
    show(view, screen, [10_000, 123_456]);
    return screen.text;
  };
  match(
    of(64),
    /steps {2}[\d,]+ steps\/s {2}.* left\nloss .* L0 .* FVU .* dead .* %\n/,
  );
  for (const sign of ["[", "█"]) ok(!of(64).includes(sign));
  match(
    of(80),
    /steps {2}[\d,]+ steps\/s {2}.* left\nloss .* █.* L0 .* █.* FVU .* dead .* %\n/,
  );
  ok(!of(80).includes("["));
  match(of(90), /^train \[#.* left\n/);
});

Deno.test("TrainView finds its first line again after a terminal has broken its lines", () => {
  const screen = new Screen(100);
  using view = new TrainView({ steps: 200 }, screen);
  show(view, screen, [0, 10]);
  const lengths = screen.text.split("\n").slice(0, 4).map((line) =>
    line.length
  );
  screen.width = 30;
  const rows = lengths.reduce((sum, n) => sum + Math.ceil(n / 30), 0);
  screen.ms += 1000;
  view.update(metricsLine(20));
  ok(screen.written.at(-1)!.startsWith(`\x1b[${rows}A\r`), `${rows} rows`);
});

Deno.test("TrainView puts notes above itself, and ends with a line that sums up", () => {
  const screen = new Screen(100);
  const view = new TrainView({ steps: 200, start: 100 }, screen);
  view.note("before the first line");
  show(view, screen, [100, 150]);
  view.note("checkpoint");
  const [before, note, first] = screen.text.split("\n");
  deepEqual([before, note], ["before the first line", "checkpoint"]);
  match(first!, /^train \[#{15}-{5}\] 75 % 151\/200 steps {2}25\.5 steps\/s/);
  view.end();
  view.end();
  show(view, screen, [160]);
  equal(
    screen.text,
    "before the first line\ncheckpoint\ntrain: 151 steps in 2.0 s, 25.5 steps/s, loss 0.66  FVU 0.007  L0 5.0  34,000 tokens/s\n",
  );
});

Deno.test("TrainView leaves its last numbers and a free line when the run fails", () => {
  const screen = new Screen(100);
  {
    using view = new TrainView({ steps: 200 }, screen);
    show(view, screen, [10]);
  }
  screen.write("error: the device was lost\n");
  match(
    screen.text,
    /^train .*\nloss .*\nλ .*\nstep .*\nerror: the device was lost\n$/,
  );
});

Deno.test("TrainView draws nothing over what Ctrl-C said", () => {
  const screen = new Screen(100);
  const controller = new AbortController();
  {
    using view = new TrainView(
      { steps: 200, signal: controller.signal },
      screen,
    );
    show(view, screen, [10]);
    screen.write("^C\nstopping; Ctrl-C again ends at once\n");
    controller.abort();
    show(view, screen, [11, 12]);
    view.note("checkpoint");
    view.end();
  }
  match(
    screen.text,
    /^train .* 11\/200 .*\nloss .*\nλ .*\nstep .*\n\^C\nstopping; Ctrl-C again ends at once\ncheckpoint\n$/,
  );
});

Deno.test("TrainView shows AuxK and resampling where a run has them", () => {
  const screen = new Screen(120);
  using view = new TrainView({ steps: 200 }, screen);
  view.update({ ...metricsLine(3), auxLoss: 0.25, resampled: 12 });
  match(screen.text, /dense path {2}AuxK 0\.2500 {2}12 resampled/);
});

Deno.test("TrainView writes plain lines where there is no terminal, and only notes when quiet", () => {
  const plain = new Plain();
  {
    using view = new TrainView({ steps: 200 }, plain);
    for (const step of [0, 49, 99]) {
      plain.ms += 6000;
      view.update(metricsLine(step));
    }
    view.note("checkpoint");
    view.end();
  }
  deepEqual(plain.written, [
    "train 25 % 50/200 steps  4.17 steps/s  36 s left  loss 2.00  FVU 0.020  L0 13.6  34,000 tokens/s\n",
    "checkpoint\n",
    "train: 100 steps in 18 s, 5.56 steps/s, loss 1.00  FVU 0.010  L0 7.3  34,000 tokens/s\n",
  ]);
  for (const output of [new Plain(), new Screen(80)]) {
    using view = new TrainView({ steps: 200, quiet: true }, output);
    output.ms += 20_000;
    view.update(metricsLine(0));
    view.note("W&B does not answer");
    view.end();
    deepEqual(output.written, ["W&B does not answer\n"]);
  }
});

/** An output that is no terminal. */
class Plain implements ProgressOutput {
  readonly isTerminal = false;
  readonly written: string[] = [];
  ms = 0;
  columns(): number {
    throw new Error("a pipe has no columns");
  }
  write(text: string): void {
    this.written.push(text);
  }
  now(): number {
    return this.ms;
  }
}

Deno.test("Sparkline keeps the course of any number of values in its width", () => {
  const line = new Sparkline(8);
  equal(`${line}`, " ".repeat(8));
  line.add(5);
  equal(`${line}`, "▁".padEnd(8));
  line.add(NaN);
  for (let i = 1; i < 10_000; i++) line.add(5 + i);
  equal(`${line}`.length, 8);
  const signs = [...`${line}`];
  deepEqual(signs, signs.toSorted(), "rising values rise");
  deepEqual([signs[0], signs.at(-1)], ["▁", "█"]);
});

Deno.test("Sparkline goes by logarithms where all values are above 0", () => {
  const line = new Sparkline(3);
  for (const value of [1, 10, 100]) line.add(value);
  equal(`${line}`, "▁▅█");
  const linear = new Sparkline(3);
  for (const value of [0, 10, 100]) linear.add(value);
  equal(`${linear}`, "▁▂█");
});
