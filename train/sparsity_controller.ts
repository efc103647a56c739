/**
 * Steers λ to a wanted L0, so that nobody has to search for the λ that gives it.
 * @module
 */

/** Where a controller stands; enough to go on. */
export interface ControllerState {
  /** What the schedule's λ is multiplied by. */
  readonly factor: number;
  /** L0 of the last update; null before the first. */
  readonly L0: number | null;
}

/** Steps between updates. An update takes the L0 of the one before, which has long arrived. */
export const CONTROL_EVERY = 10;

/** Change of log λ at an update, for an L0 that is e times too large. */
const GAIN = 0.03;
/** Change of log λ at an update for a change of log L0 since the last one: it holds back an L0 that moves already. */
const DAMPING = 0.5;
/** An L0 that is further off than this many times counts as this far off. */
const MOST = 4;

/** Multiplies λ: up where too many features fire, down where too few do. */
export class SparsityController {
  readonly #target: number;
  #factor = 1;
  #last: number | null = null;

  /** @param target The L0 wanted. */
  constructor(target: number) {
    this.#target = target;
  }

  /** What the schedule's λ is multiplied by now. */
  get factor(): number {
    return this.#factor;
  }

  /** Takes an L0 that was measured. */
  update(L0: number): void {
    // An SAE that has gone silent has an L0 of 0, whose logarithm says nothing.
    const measured = Math.max(L0, this.#target / 1e3);
    const off = Math.log(measured / this.#target);
    const limit = Math.log(MOST);
    const moved = this.#last === null ? 0 : Math.log(measured / this.#last);
    this.#last = measured;
    this.#factor *= Math.exp(
      GAIN * Math.max(-limit, Math.min(limit, off)) +
        DAMPING * Math.max(-limit, Math.min(limit, moved)) * GAIN * 10,
    );
  }

  /** Where it stands. */
  get state(): ControllerState {
    return { factor: this.#factor, L0: this.#last };
  }

  /** Goes on from a state. */
  set state({ factor, L0 }: ControllerState) {
    this.#factor = factor;
    this.#last = L0;
  }
}
