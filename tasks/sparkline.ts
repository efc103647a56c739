/**
 * The course of a number in one line of text.
 * @module
 */

const LEVELS = "▁▂▃▄▅▆▇█";

/** A course of any length in a fixed number of signs; longer ones are averaged. */
export class Sparkline {
  readonly #width: number;
  /** Means of `#stride` values each, at most twice the width. */
  #means: number[] = [];
  #stride = 1;
  #sum = 0;
  #count = 0;

  /** @param width Signs. */
  constructor(width: number) {
    this.#width = width;
  }

  /** Adds a value; one that is not finite is left out. */
  add(value: number): void {
    if (!Number.isFinite(value)) return;
    this.#sum += value;
    this.#count++;
    if (this.#count < this.#stride) return;
    this.#means.push(this.#sum / this.#count);
    this.#sum = this.#count = 0;
    if (this.#means.length < 2 * this.#width) return;
    this.#means = pairs(this.#means);
    this.#stride *= 2;
  }

  /** The signs, filled with blanks; from the smallest value to the largest, by their logarithms where all are above 0. */
  toString(): string {
    const shown = this.#means.length > this.#width
      ? squeeze(this.#means, this.#width)
      : this.#means;
    const isLog = shown.every((value) => value > 0);
    const values = isLog ? shown.map(Math.log) : shown;
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const signs = values.map((value) => {
      const share = high > low ? (value - low) / (high - low) : 0;
      return LEVELS[Math.round(share * (LEVELS.length - 1))];
    });
    return signs.join("").padEnd(this.#width);
  }
}

function pairs(values: readonly number[]): number[] {
  return Array.from(
    { length: values.length / 2 },
    (_, i) => (values[2 * i]! + values[2 * i + 1]!) / 2,
  );
}

/** Means of as many runs of neighbors as there are places. */
function squeeze(values: readonly number[], places: number): number[] {
  return Array.from({ length: places }, (_, place) => {
    const start = Math.floor(place * values.length / places);
    const end = Math.floor((place + 1) * values.length / places);
    const part = values.slice(start, end);
    return part.reduce((sum, value) => sum + value, 0) / part.length;
  });
}
