/**
 * What `train` shows while it goes, on standard error: on a terminal a few lines
 * that are drawn anew in place, elsewhere a plain line now and then.
 * @module
 */
import type { MetricsLine, StepMs } from "../train/metrics_line.ts";
import { formatCount, formatDuration, formatRate } from "./format.ts";
import { Pace } from "./pace.ts";
import { Progress, type ProgressOutput, STANDARD_ERROR } from "./progress.ts";
import { Sparkline } from "./sparkline.ts";

/** The run that is shown. */
export interface TrainViewOptions {
  /** Steps of the whole run. */
  readonly steps: number;
  /** Steps that were done before, by the run that is resumed; default 0. */
  readonly start?: number;
  /** Whether nothing but notes is written; default false. */
  readonly quiet?: boolean;
  /** Once it is aborted nothing is drawn any more, so that what was said of it stays. */
  readonly signal?: AbortSignal;
}

const REDRAW_MS = 100;
const SPARK_WIDTH = 14;
/** Columns from which on there is room for the numbers' courses, and for the bar; numbers go first. */
const COLUMNS_OF_SPARKS = 80;
const COLUMNS_OF_BAR = 90;
/** Of terminals that do not tell how wide they are. */
const DEFAULT_COLUMNS = 80;

/** The view of one run. Dispose of it, or `end` it, before results are printed. */
export class TrainView implements Disposable {
  readonly #options: TrainViewOptions;
  readonly #output: ProgressOutput;
  readonly #pace: Pace;
  /** Writes the lines where nothing can be drawn anew. */
  readonly #plain: Progress | undefined;
  readonly #loss = new Sparkline(SPARK_WIDTH);
  readonly #L0 = new Sparkline(SPARK_WIDTH);
  #last: MetricsLine | undefined;
  #lastAt = -Infinity;
  /** Lengths of the lines that are on the screen. */
  #drawn: readonly number[] = [];
  #isOver = false;

  /** Starts the clock; nothing is written yet. */
  constructor(
    options: TrainViewOptions,
    output: ProgressOutput = STANDARD_ERROR,
  ) {
    const { steps: total, start = 0, quiet = false } = options;
    this.#options = options;
    this.#output = output;
    this.#pace = new Pace({ total, start }, () => output.now());
    if (!output.isTerminal) {
      const what = { label: "train", unit: "steps", total, start, quiet };
      this.#plain = new Progress(what, output);
    }
  }

  /** Shows the newest line; cheap enough to call for each. */
  update(line: MetricsLine): void {
    this.#last = line;
    this.#loss.add(line.loss);
    this.#L0.add(line.L0);
    this.#plain?.update(line.step + 1, detailOf(line));
    if (!this.#isDrawing()) return;
    if (this.#output.now() - this.#lastAt < REDRAW_MS) return;
    this.#lastAt = this.#output.now();
    this.#draw();
  }

  /** Writes a line of its own, above the view; not even `quiet` keeps it back. */
  note(text: string): void {
    if (this.#plain) {
      this.#plain.note(text);
      return;
    }
    const isDrawing = this.#isDrawing();
    if (isDrawing) this.#clear();
    this.#output.write(`${text}\n`);
    if (isDrawing && this.#last) this.#draw();
  }

  /** Ends the view with a line that sums the run up. */
  end(): void {
    this.#plain?.end();
    if (this.#isDrawing()) {
      this.#clear();
      this.#output.write(`${this.#summary()}\n`);
    }
    this.#isOver = true;
  }

  /** Ends the view without a word, as when the run failed; the last numbers stay. */
  [Symbol.dispose](): void {
    this.#plain?.[Symbol.dispose]();
    this.#isOver = true;
  }

  #isDrawing(): boolean {
    const { quiet = false, signal } = this.#options;
    return !this.#plain && !quiet && !this.#isOver && !signal?.aborted;
  }

  #draw(): void {
    const columns = this.#columns();
    const rows = this.#output.rows?.() || Infinity;
    // The cursor stands below, and the last column makes some terminals begin a new line.
    const lines = this.#lines(columns).slice(0, Math.max(1, rows - 1))
      .map((line) => line.slice(0, columns - 1).trimEnd());
    // In one piece and without clearing first, so that nothing flickers.
    const text = lines.map((line) => `${line}\x1b[K\n`).join("");
    this.#output.write(`${this.#home()}${text}\x1b[J`);
    this.#drawn = lines.map(({ length }) => length);
  }

  /** Takes the view off the screen. */
  #clear(): void {
    if (this.#drawn.length > 0) this.#output.write(`${this.#home()}\x1b[J`);
    this.#drawn = [];
  }

  /** Moves to the view's first line; a terminal that was made narrower has broken its lines. */
  #home(): string {
    const columns = this.#columns();
    const rows = this.#drawn.reduce(
      (sum, length) => sum + Math.max(1, Math.ceil(length / columns)),
      0,
    );
    return rows > 0 ? `\x1b[${rows}A\r` : "";
  }

  #columns(): number {
    const columns = this.#output.columns();
    return columns > 1 ? columns : DEFAULT_COLUMNS;
  }

  #lines(columns: number): string[] {
    const line = this.#last!;
    const { loss, L0, fvu, deadShare, lambda, lr, gradNorm } = line;
    const { steps } = this.#options;
    const done = line.step + 1;
    const pace = this.#pace;
    const bar = columns < COLUMNS_OF_BAR ? "" : `${pace.bar(done)} `;
    const spark = (course: Sparkline): string =>
      columns < COLUMNS_OF_SPARKS ? "" : ` ${course}`;
    return [
      [
        `train ${bar}${pace.percent(done)} % ${formatCount(done)}/${
          formatCount(steps)
        } steps`,
        `${formatRate(pace.rate(done))} steps/s`,
        pace.left(done),
      ],
      [
        `loss ${short(loss)}${spark(this.#loss)}`,
        `L0 ${short(L0)}${spark(this.#L0)}`,
        `FVU ${fvu.toFixed(4)}`,
        `dead ${(100 * deadShare).toFixed(1)} %`,
      ],
      [
        `λ ${short(lambda)}`,
        `lr ${lr.toExponential(2)}`,
        `gradient ${short(gradNorm)}`,
        `${formatRate(line.tokensPerSecond)} tokens/s`,
        `${line.path} path`,
        ...extras(line),
      ],
      [`step ${short(line.ms.step)} ms: ${shares(line.ms)}`],
    ].map((parts) => parts.filter(Boolean).join("  "));
  }

  #summary(): string {
    const done = (this.#last?.step ?? -1) + 1;
    const parts = [
      `train: ${formatCount(done)} steps in ${formatDuration(this.#pace.ms())}`,
      `${formatRate(this.#pace.rate(done))} steps/s`,
      this.#last && detailOf(this.#last),
    ];
    return parts.filter(Boolean).join(", ");
  }
}

/** The main numbers in a few words. */
function detailOf({ loss, fvu, L0, tokensPerSecond }: MetricsLine): string {
  return `loss ${loss.toFixed(2)}  FVU ${fvu.toFixed(3)}  L0 ${
    L0.toFixed(1)
  }  ${formatRate(tokensPerSecond)} tokens/s`;
}

/** What only some runs have. */
function extras({ auxLoss, resampled }: MetricsLine): string[] {
  return [
    ...(auxLoss === undefined ? [] : [`AuxK ${short(auxLoss)}`]),
    ...(resampled ? [`${formatCount(resampled)} resampled`] : []),
  ];
}

/** Where the time of a step goes. */
function shares({ step, load, host, wait }: StepMs): string {
  const share = (ms: number): string =>
    step > 0 ? `${Math.round(100 * ms / step)} %` : "–";
  return `load ${share(load)}  host ${share(host)}  GPU ${share(wait)}`;
}

/** A number in about six signs, so that what stands beside it hardly moves. */
function short(value: number): string {
  const size = Math.abs(value);
  return value === 0 || (size >= 0.01 && size < 10_000)
    ? value.toPrecision(4)
    : value.toExponential(2);
}
