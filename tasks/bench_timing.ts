/**
 * How the bench times what a GPU does, and what it makes of the times.
 * @module
 */
import type { Gpu, Recorder } from "../gpu/mod.ts";

/** Commands to time. */
export type Recorded = (rec: Recorder) => void;

/** One measured rate. */
export interface Rate {
  /** Part of the report: "decode, 1B". */
  readonly section: string;
  readonly what: string;
  /** Milliseconds of one. */
  readonly ms: number;
  /** How many of the unit a second, or what else the unit says. */
  readonly rate: number;
  /** "tokens/s", "GFLOP/s". */
  readonly unit: string;
  /** Gigabytes of weights a second. */
  readonly gbPerS?: number;
  /** Multiplications and additions with weights, in thousands of millions a second. */
  readonly gflopPerS?: number;
  /** Times as long as with one row. */
  readonly ofOneRow?: number;
}

/** Least duration of a measurement by the clock: waiting takes up to 11 ms in Deno. */
const LEAST_CLOCK_MS = 100;

/** How this adapter is timed. */
export function timingOf(gpu: Gpu): "GPU timestamps" | "wall clock" {
  return gpu.device.features.has("timestamp-query")
    ? "GPU timestamps"
    : "wall clock";
}

/**
 * Times commands in turns, so that whatever else the machine does meets all of them, after a warm-up of each.
 * @returns Milliseconds of one run each, by turn.
 */
export async function timeInTurns(
  gpu: Gpu,
  all: readonly Recorded[],
  nTurns: number,
): Promise<number[][]> {
  const times: number[][] = all.map(() => []);
  const runs = all.map(() => 1);
  for (const [i, record] of all.entries()) {
    await timeOnce(gpu, record, 1);
    if (timingOf(gpu) === "GPU timestamps") continue;
    const ms = await timeOnce(gpu, record, 1);
    runs[i] = Math.max(1, Math.ceil(LEAST_CLOCK_MS / ms));
  }
  for (let turn = 0; turn < nTurns; turn++) {
    for (const [i, record] of all.entries()) {
      times[i]!.push(await timeOnce(gpu, record, runs[i]!));
    }
  }
  return times;
}

/** The least times of {@link timeInTurns}: what others do on the machine only adds to them. */
export async function leastTimes(
  gpu: Gpu,
  all: readonly Recorded[],
  nTurns = 5,
): Promise<number[]> {
  const times = await timeInTurns(gpu, all, nTurns);
  return times.map((ms) => Math.min(...ms));
}

/** Milliseconds of one of `n` runs; by timestamps those of its kernels. */
async function timeOnce(
  gpu: Gpu,
  record: Recorded,
  n: number,
): Promise<number> {
  if (timingOf(gpu) === "GPU timestamps") {
    return await kernelTime(gpu, () => gpu.record("bench", record));
  }
  const ms = await wallTime(gpu, () => {
    for (let i = 0; i < n; i++) gpu.record("bench", record);
  });
  return ms / n;
}

/** Milliseconds of all kernels that `run` submits, by timestamps. */
export async function kernelTime(
  gpu: Gpu,
  run: () => void | Promise<unknown>,
): Promise<number> {
  const profile = gpu.startProfile();
  await run();
  const kernels = await profile.stop();
  await gpu.settled();
  return kernels.reduce((sum, { ms }) => sum + ms, 0);
}

/** Milliseconds from before `run` until the GPU has done what it submits. */
export async function wallTime(
  gpu: Gpu,
  run: () => void | Promise<unknown>,
): Promise<number> {
  const start = performance.now();
  await run();
  await gpu.device.queue.onSubmittedWorkDone();
  const ms = performance.now() - start;
  await gpu.settled();
  return ms;
}

/** The middle of some numbers. */
export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[sorted.length >> 1] ?? NaN;
}
