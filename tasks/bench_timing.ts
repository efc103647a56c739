/**
 * How the bench times what a GPU does, and what it makes of the times.
 * @module
 */
import { cpuUsage } from "node:process";
import type { Gpu, Recorder } from "../gpu/mod.ts";

/** Commands to time. */
export type Recorded = (rec: Recorder) => void;

/** Time that one run of something took. */
export interface Duration {
  /** Milliseconds. */
  readonly ms: number;
  /** On a software driver processor time of all threads, divided by the processors: what else the machine does changes it less. */
  readonly cpuMs?: number;
}

/** How many times as long one thing takes as another. */
export function timesAsLong(a: Duration, b: Duration): Partial<Rate> {
  return {
    ofOneRow: a.ms / b.ms,
    ...(a.cpuMs !== undefined && b.cpuMs !== undefined && {
      cpuOfOneRow: a.cpuMs / b.cpuMs,
    }),
  };
}

/** One measured rate. */
export interface Rate extends Duration {
  /** Part of the report: "decode, 1B". */
  readonly section: string;
  readonly what: string;
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
  /** The same from processor times. */
  readonly cpuOfOneRow?: number;
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
 * @returns One run each, by turn.
 */
export async function timeInTurns(
  gpu: Gpu,
  all: readonly Recorded[],
  nTurns: number,
): Promise<Duration[][]> {
  const times: Duration[][] = all.map(() => []);
  const runs = all.map(() => 1);
  for (const [i, record] of all.entries()) {
    await timeOnce(gpu, record, 1);
    if (timingOf(gpu) === "GPU timestamps") continue;
    const { ms } = await timeOnce(gpu, record, 1);
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
): Promise<Duration[]> {
  const times = await timeInTurns(gpu, all, nTurns);
  const least = (values: readonly number[]) => Math.min(...values);
  return times.map((turns) => durationOf(turns, least));
}

/** Several durations as one. */
export function durationOf(
  turns: readonly Duration[],
  reduce: (values: readonly number[]) => number,
): Duration {
  const cpu = turns.flatMap(({ cpuMs }) => cpuMs ?? []);
  return {
    ms: reduce(turns.map(({ ms }) => ms)),
    ...(cpu.length > 0 && { cpuMs: reduce(cpu) }),
  };
}

/** One of `n` runs; by timestamps those of its kernels. */
async function timeOnce(
  gpu: Gpu,
  record: Recorded,
  n: number,
): Promise<Duration> {
  let ms = 0;
  const { cpuMs } = await wallTime(gpu, async () => {
    ms = timingOf(gpu) === "GPU timestamps"
      ? await kernelTime(gpu, () => gpu.record("bench", record))
      : (await wallTime(gpu, () => {
        for (let i = 0; i < n; i++) gpu.record("bench", record);
      })).ms;
  });
  return { ms: ms / n, ...(cpuMs !== undefined && { cpuMs: cpuMs / n }) };
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

/** The time from before `run` until the GPU has done what it submits. */
export async function wallTime(
  gpu: Gpu,
  run: () => void | Promise<unknown>,
): Promise<Duration> {
  const cpu = cpuUsage();
  const start = performance.now();
  await run();
  await gpu.device.queue.onSubmittedWorkDone();
  const ms = performance.now() - start;
  const { user, system } = cpuUsage(cpu);
  await gpu.settled();
  const cpuMs = (user + system) / 1000 / navigator.hardwareConcurrency;
  return { ms, ...(gpu.isSoftware && { cpuMs }) };
}

/** The middle of some numbers. */
export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[sorted.length >> 1] ?? NaN;
}
