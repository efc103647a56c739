/**
 * Progress of long work, on standard error, so that results on standard output stay clean:
 * one line that is drawn anew on a terminal, a line now and then elsewhere.
 * @module
 */
import { formatCount, formatDuration, formatRate } from "./format.ts";
import { Pace } from "./pace.ts";

/** Where progress is written, and the clock that it goes by. */
export interface ProgressOutput {
  /** Whether a line can be drawn anew. */
  readonly isTerminal: boolean;
  /** Characters in a line of the terminal. */
  columns(): number;
  /** Lines of the terminal; many when absent. */
  rows?(): number;
  write(text: string): void;
  /** Milliseconds on a steady clock. */
  now(): number;
}

/** What is under way. */
export interface ProgressOptions {
  /** What is done, in a word: "collect". */
  readonly label: string;
  /** What is counted: "tokens". */
  readonly unit: string;
  /** How many there are; leave it out where nobody knows. */
  readonly total?: number;
  /** How many were done before, by the run that is resumed; default 0. */
  readonly start?: number;
  /** Whether nothing at all is written; default false. */
  readonly quiet?: boolean;
}

const REDRAW_MS = 100;
const LINE_MS = 10_000;
/** Carriage return, and clear to the end of the line. */
const CLEAR = "\r\x1b[K";

/** Standard error of this process. */
export const STANDARD_ERROR: ProgressOutput = {
  isTerminal: Deno.stderr.isTerminal(),
  columns: () => Deno.consoleSize().columns,
  rows: () => Deno.consoleSize().rows,
  write(text): void {
    const bytes = new TextEncoder().encode(text);
    for (let written = 0; written < bytes.length;) {
      written += Deno.stderr.writeSync(bytes.subarray(written));
    }
  },
  now: () => performance.now(),
};

/** One piece of long work. Dispose of it, or `end` it, before results are printed. */
export class Progress implements Disposable {
  readonly #options: ProgressOptions;
  readonly #output: ProgressOutput;
  readonly #pace: Pace;
  #lastAt: number;
  #done: number;
  #detail = "";
  #isDrawn = false;
  #isOver: boolean;

  /** Starts the clock; nothing is written yet. */
  constructor(
    options: ProgressOptions,
    output: ProgressOutput = STANDARD_ERROR,
  ) {
    this.#options = options;
    this.#output = output;
    this.#done = options.start ?? 0;
    this.#pace = new Pace(options, () => output.now());
    // A terminal shows the first update at once; a log waits for news.
    this.#lastAt = output.isTerminal ? -Infinity : output.now();
    this.#isOver = options.quiet ?? false;
  }

  /**
   * Says how far it is; cheap enough to call in every step.
   * @param done How many are done in all.
   * @param detail What else to show, such as "loss 0.42".
   */
  update(done: number, detail = ""): void {
    this.#done = done;
    this.#detail = detail;
    const interval = this.#output.isTerminal ? REDRAW_MS : LINE_MS;
    if (this.#isOver || this.#output.now() - this.#lastAt < interval) return;
    this.#lastAt = this.#output.now();
    this.#draw();
  }

  /** Writes a line of its own, above the progress; not even `quiet` keeps it back. */
  note(text: string): void {
    this.#clear();
    this.#output.write(`${text}\n`);
    if (this.#output.isTerminal && !this.#isOver) this.#draw();
  }

  /** Ends the work with a line that sums it up. */
  end(): void {
    if (this.#isOver) return;
    this.#clear();
    this.#isOver = true;
    const { label, unit } = this.#options;
    this.#output.write(
      [
        `${label}: ${formatCount(this.#done)} ${unit} in ${
          formatDuration(this.#pace.ms())
        }`,
        `${formatRate(this.#pace.rate(this.#done))} ${unit}/s`,
        this.#detail,
      ].filter(Boolean).join(", ") + "\n",
    );
  }

  /** Ends the work without a word, as when it failed. */
  [Symbol.dispose](): void {
    this.#clear();
    this.#isOver = true;
  }

  #clear(): void {
    if (this.#isDrawn) this.#output.write(CLEAR);
    this.#isDrawn = false;
  }

  #draw(): void {
    if (!this.#output.isTerminal) {
      this.#output.write(`${this.#line("")}\n`);
      return;
    }
    const bar = this.#pace.bar(this.#done);
    // The last column makes some terminals begin a new line.
    const line = this.#line(bar && ` ${bar}`).slice(
      0,
      this.#output.columns() - 1,
    );
    this.#output.write(CLEAR + line);
    this.#isDrawn = true;
  }

  #line(bar: string): string {
    const { label, unit, total } = this.#options;
    const rate = this.#pace.rate(this.#done);
    const left = this.#pace.left(this.#done);
    const counts = total === undefined
      ? `${formatCount(this.#done)} ${unit}`
      : `${this.#pace.percent(this.#done)} % ${formatCount(this.#done)}/${
        formatCount(total)
      } ${unit}`;
    const parts = [
      counts,
      `${formatRate(rate)} ${unit}/s`,
      left,
      this.#detail,
    ];
    return `${label}${bar} ${parts.filter(Boolean).join("  ")}`;
  }
}
