import type { Gpu } from "./device.ts";

/** Time that one kernel took, over all its launches. */
export interface KernelTime {
  /** The kernel's name. */
  readonly kernel: string;
  /** How often it was launched. */
  readonly launches: number;
  /** Milliseconds on the GPU, where the driver counts in nanoseconds (NVIDIA, Mesa). */
  readonly ms: number;
}

/** Launches that fit into one query set. */
const MAX_LAUNCHES = 2048;

/** Times kernel launches with timestamp queries; {@link Gpu.startProfile} makes it. */
export class Profiler {
  readonly #gpu: Gpu;
  readonly #queries: GPUQuerySet;
  readonly #ticks: GPUBuffer;
  readonly #names: string[] = [];

  /** For {@link Gpu.startProfile}. */
  constructor(gpu: Gpu) {
    this.#gpu = gpu;
    this.#queries = gpu.device.createQuerySet({
      type: "timestamp",
      count: 2 * MAX_LAUNCHES,
    });
    this.#ticks = gpu.device.createBuffer({
      label: "timestamps",
      size: 16 * MAX_LAUNCHES,
      usage: GPUBufferUsage.QUERY_RESOLVE | GPUBufferUsage.COPY_SRC,
    });
  }

  /** Where the next launch's pass writes its times; undefined once the query set is full. */
  next(kernel: string): GPUComputePassTimestampWrites | undefined {
    if (this.#names.length === MAX_LAUNCHES) return undefined;
    const at = 2 * this.#names.push(kernel) - 2;
    return {
      querySet: this.#queries,
      beginningOfPassWriteIndex: at,
      endOfPassWriteIndex: at + 1,
    };
  }

  /** Records the copy of the times into a buffer. */
  resolve(encoder: GPUCommandEncoder): void {
    if (this.#names.length === 0) return;
    encoder.resolveQuerySet(
      this.#queries,
      0,
      2 * this.#names.length,
      this.#ticks,
      0,
    );
  }

  /** Ends the timing; time by kernel, slowest first. */
  async stop(): Promise<KernelTime[]> {
    this.#gpu.profiler = undefined;
    const size = 16 * Math.max(1, this.#names.length);
    const usage = GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST;
    const staging = this.#gpu.device.createBuffer({
      label: "read timestamps",
      size,
      usage,
    });
    this.#gpu.record(
      "read timestamps",
      (rec) => rec.copyBuffer(this.#ticks, 0, staging, 0, size),
    );
    await staging.mapAsync(GPUMapMode.READ);
    const ticks = new BigUint64Array(staging.getMappedRange().slice(0));
    for (const owned of [staging, this.#ticks, this.#queries]) owned.destroy();
    const times = new Map<string, { launches: number; ms: number }>();
    for (const [i, kernel] of this.#names.entries()) {
      const time = times.get(kernel) ?? { launches: 0, ms: 0 };
      time.launches++;
      time.ms += Number(ticks[2 * i + 1]! - ticks[2 * i]!) / 1e6;
      times.set(kernel, time);
    }
    return [...times].map(([kernel, time]) => ({ kernel, ...time })).sort((
      a,
      b,
    ) => b.ms - a.ms);
  }
}
