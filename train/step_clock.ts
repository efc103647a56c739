/**
 * Where the time of training steps goes.
 * @module
 */
import type { StepMs } from "./metrics_line.ts";

/** What is timed apart; the rest of a step is none of these. */
export type TimedPart = "load" | "host" | "wait";

/** Adds up what the parts of a loop take, and gives means a step. */
export class StepClock {
  #started = 0;
  #firstStep = 0;
  readonly #parts: Record<TimedPart, number> = { load: 0, host: 0, wait: 0 };

  /** Begins before a step. */
  start(step: number): void {
    this.#started = performance.now();
    this.#firstStep = step;
    for (const part of ["load", "host", "wait"] as const) this.#parts[part] = 0;
  }

  /** Times something that is waited for. */
  async time<T>(part: TimedPart, work: () => Promise<T>): Promise<T> {
    const start = performance.now();
    try {
      return await work();
    } finally {
      this.#parts[part] += performance.now() - start;
    }
  }

  /** Times something that is done at once. */
  timeNow(part: TimedPart, work: () => void): void {
    const start = performance.now();
    work();
    this.#parts[part] += performance.now() - start;
  }

  /** Mean milliseconds of the steps up to this one since the start or the last call; begins anew after it. */
  since(step: number): StepMs {
    const n = Math.max(1, step + 1 - this.#firstStep);
    const { load, host, wait } = this.#parts;
    const ms = {
      step: (performance.now() - this.#started) / n,
      load: load / n,
      host: host / n,
      wait: wait / n,
    };
    this.start(step + 1);
    return ms;
  }
}
