/**
 * What is compared, and how it is timed: the sides take turns, so that whatever else
 * the machine does meets all of them, and medians count.
 * @module
 */
import { cpuUsage } from "node:process";

/** Time that one run took. */
export interface Sample {
  /** Wall clock, in milliseconds. */
  readonly wallMs: number;
  /** Processor time of all threads, in milliseconds; on a software driver this holds the kernels. */
  readonly cpuMs: number;
}

/** One of the things compared. */
export interface Side extends AsyncDisposable {
  /** Who does it: "jax-js". */
  readonly name: string;
  /** Runs `n` times without waiting in between, then waits for all; time of one run. */
  time(n: number): Promise<Sample>;
}

/** A side that trains. */
export interface StepSide extends Side {
  /** Goes back to the problem's parameters, with moments of 0. */
  start(lr: number): Promise<void>;
  /** Takes `n` steps; the loss of each before its update. */
  losses(n: number): Promise<readonly number[]>;
}

/** How often and how long sides are timed. */
export interface Timing {
  /** Samples of a side. */
  readonly repeats: number;
  /** A sample has as many runs as fit into this, so that the wait at its end does not count. */
  readonly sampleMs: number;
}

/** What was measured of a side. */
export interface Measured {
  readonly name: string;
  /** Median over the samples. */
  readonly wallMs: number;
  /** Median over the samples. */
  readonly cpuMs: number;
  /** In the order of their turns. */
  readonly samples: readonly Sample[];
  /** Runs in a sample. */
  readonly runs: number;
}

/** Most runs in a sample. */
const MOST_RUNS = 100;

/** Times `run`, which does `n` things and waits for them; of one thing. */
export async function timed(
  n: number,
  run: () => Promise<void>,
): Promise<Sample> {
  const cpu = cpuUsage();
  const start = performance.now();
  await run();
  const wallMs = (performance.now() - start) / n;
  const { user, system } = cpuUsage(cpu);
  return { wallMs, cpuMs: (user + system) / 1000 / n };
}

/** Warms every side up, then times them in turns. */
export async function timeInTurns(
  sides: readonly Side[],
  { repeats, sampleMs }: Timing,
): Promise<Measured[]> {
  const runs: number[] = [];
  for (const side of sides) {
    await side.time(1); // compiles
    const { wallMs } = await side.time(2);
    runs.push(
      Math.max(1, Math.min(MOST_RUNS, Math.ceil(sampleMs / wallMs))),
    );
  }
  const samples: Sample[][] = sides.map(() => []);
  for (let r = 0; r < repeats; r++) {
    for (const [i, side] of sides.entries()) {
      samples[i]!.push(await side.time(runs[i]!));
    }
  }
  return sides.map(({ name }, i) => ({
    name,
    wallMs: median(samples[i]!.map(({ wallMs }) => wallMs)),
    cpuMs: median(samples[i]!.map(({ cpuMs }) => cpuMs)),
    samples: samples[i]!,
    runs: runs[i]!,
  }));
}

/** The middle value, or the mean of the two in the middle. */
export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const half = sorted.length >> 1;
  return sorted.length % 2 === 1
    ? sorted[half]!
    : (sorted[half - 1]! + sorted[half]!) / 2;
}

/** Median of the ratios, turn by turn: load that comes and goes meets both sides of one. */
export function medianRatio(
  numerators: readonly number[],
  denominators: readonly number[],
): number {
  return median(numerators.map((value, i) => value / denominators[i]!));
}

/** Largest relative difference of losses that are taken for the same. */
export const LOSS_TOLERANCE = 1e-4;

/**
 * Sees to it that all sides compute the same: their first losses agree, which takes
 * the same forward pass, gradients and update.
 * @throws {RangeError} If they do not; names the side and the step.
 */
export function checkAgreement(
  losses: ReadonlyMap<string, readonly number[]>,
): void {
  const [first, ...others] = losses;
  if (!first) return;
  const [reference, wanted] = first;
  for (const [name, got] of [first, ...others]) {
    for (const [step, loss] of wanted.entries()) {
      const other = got[step] ?? NaN;
      // A comparison with NaN is false, so that NaN is refused.
      if (Math.abs(other - loss) <= LOSS_TOLERANCE * Math.abs(loss)) continue;
      throw new RangeError(
        `Cannot compare ${name} with ${reference}: expected a loss of ${loss} in step ${step}, within ${LOSS_TOLERANCE} of it: got ${other}: they do not compute the same`,
      );
    }
  }
}
