/**
 * How fast work goes, and how much of it is left.
 * @module
 */
import { formatDuration } from "./format.ts";

const BAR_WIDTH = 20;

/** The pace of work that counts up, since it was made. */
export class Pace {
  readonly #total: number | undefined;
  readonly #start: number;
  readonly #now: () => number;
  readonly #startedAt: number;

  /**
   * Starts the clock.
   * @param work How much there is in all, if anybody knows, and how much was done before.
   * @param now Milliseconds on a steady clock.
   */
  constructor(
    { total, start = 0 }: { readonly total?: number; readonly start?: number },
    now: () => number,
  ) {
    this.#total = total;
    this.#start = start;
    this.#now = now;
    this.#startedAt = now();
  }

  /** Milliseconds since the start. */
  ms(): number {
    return this.#now() - this.#startedAt;
  }

  /** Units a second since the start; 0 before the first. */
  rate(done: number): number {
    const seconds = this.ms() / 1000;
    return seconds > 0 ? (done - this.#start) / seconds : 0;
  }

  /** Time left, as "12 s left"; empty while nobody can tell. */
  left(done: number): string {
    const rate = this.rate(done);
    if (this.#total === undefined || !(rate > 0)) return "";
    const ms = Math.max(0, this.#total - done) / rate * 1000;
    return `${formatDuration(ms)} left`;
  }

  /** Whole percent that are done. */
  percent(done: number): number {
    return Math.floor(100 * this.#share(done));
  }

  /** A bar, as "[#####-----]"; empty without a total. */
  bar(done: number): string {
    if (this.#total === undefined) return "";
    const filled = Math.round(BAR_WIDTH * this.#share(done));
    return `[${"#".repeat(filled)}${"-".repeat(BAR_WIDTH - filled)}]`;
  }

  #share(done: number): number {
    const total = this.#total ?? 0;
    return total > 0 ? Math.min(1, done / total) : 0;
  }
}
