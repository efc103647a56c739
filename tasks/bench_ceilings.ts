/**
 * What an adapter can do at most: how fast it reads, copies and computes, and how long it takes to answer.
 * @module
 */
import type { Gpu, Tensor } from "../gpu/mod.ts";
import { copySpeed } from "../kernels/copy_speed.ts";
import { fmaSpeed } from "../kernels/fma_speed.ts";
import { readSpeed } from "../kernels/read_speed.ts";
import { randomBytes } from "./bench_random.ts";
import { leastTimes, wallTime } from "./bench_timing.ts";

/** What was measured of an adapter. */
export interface Ceilings {
  /** Gigabytes a second that a kernel reads, 16 bytes a load, of packed rows that no cache holds; the best of some shapes. */
  readonly readGbPerS: number;
  /** Gigabytes a second that a kernel copies: read and written once each, counted once. */
  readonly copyGbPerS: number;
  /** The same of a buffer copy, by the clock. */
  readonly bufferCopyGbPerS: number;
  /** Thousands of millions of f32 multiplications and additions a second, of numbers in registers. */
  readonly gflopPerS: number;
  /** Milliseconds from asking for 4 bytes until they have arrived. */
  readonly readbackMs: number;
}

/** Rows and columns of what is read, as weights of OLMo-2 7B lie. */
export interface ReadSize {
  /** A multiple of 8. */
  readonly rows: number;
  /** A multiple of 8. */
  readonly columns: number;
}

/** 121 MB. */
export const READ_SIZE: ReadSize = { rows: 5504, columns: 11008 };

/** Lanes that share a row: one SIMD register of a software driver, workgroups of graphics cards. */
const LANES = [8, 64, 256];
/** Invocations of the arithmetic, and its rounds. */
const FMA = { software: [8192, 1024], card: [2 ** 20, 2048] } as const;

/** Measures them all, in about five seconds on a software driver. */
export async function measureCeilings(
  gpu: Gpu,
  size = READ_SIZE,
): Promise<Ceilings> {
  using owned = new DisposableStack();
  const x = owned.use(gpu.tensor("x", "bf16", [size.rows, size.columns]));
  fillRandom(x);
  const copyRows = Math.floor(x.byteLength / 4096);
  const halves = [
    x.as("from", "f32", [copyRows, 1024]),
    owned.use(gpu.tensor("to", "f32", [copyRows, 1024])),
  ] as const;
  const [n, rounds] = gpu.isSoftware ? FMA.software : FMA.card;
  const y = owned.use(gpu.tensor("y", "f32", [n]));
  const sums = LANES.map((LANES) =>
    owned.use(gpu.tensor("sums", "u32", [size.rows / 8, LANES]))
  );
  const [copy, fma, ...reads] = (await leastTimes(gpu, [
    (rec) => copySpeed.run(rec, { x: halves[0], y: halves[1] }),
    (rec) => fmaSpeed.run(rec, { y }, { rounds }),
    ...sums.map((sums, i) => (rec: Parameters<typeof readSpeed.run>[0]) =>
      readSpeed.run(rec, { x, sums }, { LANES: LANES[i]! })
    ),
  ])).map(({ ms }) => ms) as [number, number, ...number[]];
  const nCopies = Math.min(8, Math.ceil(2 ** 30 / halves[0].byteLength));
  const bufferCopies = async (): Promise<number> =>
    (await wallTime(gpu, () =>
      gpu.record("copies", (rec) => {
        for (let i = 0; i < nCopies; i++) rec.copy(...halves);
      }))).ms / nCopies;
  const bufferCopy = Math.min(await bufferCopies(), await bufferCopies());
  return {
    readGbPerS: x.byteLength / Math.min(...reads) / 1e6,
    copyGbPerS: halves[0].byteLength / copy / 1e6,
    bufferCopyGbPerS: halves[0].byteLength / bufferCopy / 1e6,
    gflopPerS: 128 * n * rounds / fma / 1e6,
    readbackMs: await readbackTime(gpu, y.rows(0, 1)),
  };
}

async function readbackTime(gpu: Gpu, one: Tensor): Promise<number> {
  let least = Infinity;
  for (let i = 0; i < 5; i++) {
    const start = performance.now();
    await gpu.read(one);
    least = Math.min(least, performance.now() - start);
  }
  return least;
}

/** Fills a tensor of packed bf16: pages that nobody wrote are all the same one, and read from a cache. */
export function fillRandom(tensor: Tensor): void {
  const { nRows, rowBytes } = tensor;
  const step = Math.max(2, 2 * Math.floor(2 ** 24 / rowBytes / 2));
  for (let row = 0; row < nRows; row += step) {
    const rows = Math.min(step, nRows - row);
    tensor.write(randomBytes(row * rowBytes, (row + rows) * rowBytes), row);
  }
}
