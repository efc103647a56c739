/**
 * Progress of long work, on standard error, so that results on standard output stay clean:
 * one line that is drawn anew on a terminal, a line now and then elsewhere.
 * @module
 */
import { formatCount, formatDuration, formatRate } from "./format.ts";

/** Where progress is written, and the clock that it goes by. */
export interface ProgressOutput {
  /** Whether a line can be drawn anew. */
  readonly isTerminal: boolean;
  /** Characters in a line of the terminal. */
  columns(): number;
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
const BAR_WIDTH = 20;
/** Carriage return, and clear to the end of the line. */
const CLEAR = "\r\x1b[K";

/** Standard error of this process. */
const STANDARD_ERROR: ProgressOutput = {
  isTerminal: Deno.stderr.isTerminal(),
  columns: () => Deno.consoleSize().columns,
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
  readonly #startedAt: number;
  readonly #start: number;
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
    this.#start = this.#done = options.start ?? 0;
    this.#startedAt = output.now();
    // A terminal shows the first update at once; a log waits for news.
    this.#lastAt = output.isTerminal ? -Infinity : this.#startedAt;
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
    const ms = this.#output.now() - this.#startedAt;
    this.#output.write(
      [
        `${label}: ${formatCount(this.#done)} ${unit} in ${formatDuration(ms)}`,
        `${formatRate(this.#rate())} ${unit}/s`,
        this.#detail,
      ].filter(Boolean).join(", ") + "\n",
    );
  }

  /** Ends the work without a word, as when it failed. */
  [Symbol.dispose](): void {
    this.#clear();
    this.#isOver = true;
  }

  /** Units a second since this run began; 0 before the first. */
  #rate(): number {
    const seconds = (this.#output.now() - this.#startedAt) / 1000;
    return seconds > 0 ? (this.#done - this.#start) / seconds : 0;
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
    const { total } = this.#options;
    const filled = Math.round(BAR_WIDTH * this.#share());
    const bar = total === undefined
      ? ""
      : ` [${"#".repeat(filled)}${"-".repeat(BAR_WIDTH - filled)}]`;
    // The last column makes some terminals begin a new line.
    const line = this.#line(bar).slice(0, this.#output.columns() - 1);
    this.#output.write(CLEAR + line);
    this.#isDrawn = true;
  }

  /** Share of the total that is done, 0 to 1. */
  #share(): number {
    const { total = 0 } = this.#options;
    return total > 0 ? Math.min(1, this.#done / total) : 0;
  }

  #line(bar: string): string {
    const { label, unit, total } = this.#options;
    const rate = this.#rate();
    const left = total !== undefined && rate > 0
      ? `${formatDuration(Math.max(0, total - this.#done) / rate * 1000)} left`
      : "";
    const counts = total === undefined
      ? `${formatCount(this.#done)} ${unit}`
      : `${Math.floor(100 * this.#share())} % ${formatCount(this.#done)}/${
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
