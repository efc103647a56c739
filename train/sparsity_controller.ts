/**
 * Steers λ to a wanted L0, so that nobody has to search for the λ that gives it.
 * @module
 */

/** Where a controller stands; enough to go on. */
export interface ControllerState {
  /** What the schedule's λ is multiplied by. */
  readonly factor: number;
  /** Error of the last update; null before the first. */
  readonly error: number | null;
  /** L0 that was measured for the next update; null where none was. */
  readonly measured: number | null;
}

/** Steps between updates. An update takes the L0 of the step of the one before, which has long arrived. */
export const CONTROL_EVERY = 10;

/** Change of log λ over a whole run for an L0 that stays e times too large: how fast an SAE answers goes with the length of its run. */
const INTEGRAL_OF_RUN = 20;
/** The same at one update of a short run, at most. */
const LARGEST_INTEGRAL = 0.06;
/** Change of log λ for an error that grew by 1 since the last update: it holds back an L0 that is on its way already. */
const PROPORTIONAL = 1.5;
/** An L0 that is further off than this many times counts as this far off, so that the way down from all features is no reason to overshoot. */
const FURTHEST = 4;
/** λ is never multiplied or divided by more than this: an SAE that has gone silent does not answer. */
const LARGEST_FACTOR = 1e6;

/** Multiplies λ: up where too many features fire, down where too few do. */
export class SparsityController {
  readonly #target: number;
  readonly #integral: number;
  #factor = 1;
  #error: number | null = null;
  #measured: number | null = null;

  /**
   * @param target The L0 wanted.
   * @param steps Of the whole run.
   */
  constructor(target: number, steps: number) {
    this.#target = target;
    const integral = INTEGRAL_OF_RUN * CONTROL_EVERY / steps;
    this.#integral = Math.min(LARGEST_INTEGRAL, integral);
  }

  /** What the schedule's λ is multiplied by now. */
  get factor(): number {
    return this.#factor;
  }

  /** Takes an L0 for the next update. */
  measure(L0: number): void {
    this.#measured = L0;
  }

  /** Moves λ by what was measured since the last update, if anything. */
  update(): void {
    if (this.#measured === null) return;
    const error = clamp(Math.log(this.#measured / this.#target), FURTHEST);
    const growth = error - (this.#error ?? error);
    const logFactor = Math.log(this.#factor) + this.#integral * error +
      PROPORTIONAL * growth;
    this.#factor = Math.exp(clamp(logFactor, LARGEST_FACTOR));
    this.#error = error;
    this.#measured = null;
  }

  /** Where it stands. */
  get state(): ControllerState {
    return {
      factor: this.#factor,
      error: this.#error,
      measured: this.#measured,
    };
  }

  /** Goes on from a state. */
  set state({ factor, error, measured }: ControllerState) {
    this.#factor = factor;
    this.#error = error;
    this.#measured = measured;
  }
}

/** A logarithm, at most that of `most` away from 0; an infinite one too. */
function clamp(log: number, most: number): number {
  const limit = Math.log(most);
  return Math.max(-limit, Math.min(limit, log));
}
