/**
 * The products of decoding: beside other libraries, beside reading alone, and of several rows beside one.
 * @module
 */
import type { Gpu, Recorder } from "../gpu/mod.ts";
import { matmul } from "../kernels/matmul.ts";
import { readSpeed } from "../kernels/read_speed.ts";
import { compareSides, type Comparison, formatMs } from "./compare.ts";
import {
  checkMatvec,
  type MatvecProblem,
  matvecProblem,
  type MatvecShape,
} from "./matvec_problem.ts";
import type { Bench, Missing, Result } from "./measures.ts";
import {
  type Measured,
  medianRatio,
  type Side,
  timed,
  timeInTurns,
} from "./side.ts";
import { torchMatvec } from "./torch.ts";

/** Rows that are multiplied at once. */
const ROWS = [1, 2, 8] as const;
/** Lanes that share a row when it is only read. */
const LANES = [8, 64, 256] as const;

/** Products of few rows with one matrix of weights. */
export async function measureMatvec(
  bench: Bench,
  shape: MatvecShape,
): Promise<Result> {
  const { gpu, rivals, torch, nCores, timing, note } = bench;
  const [N, K] = shape;
  const measure = `W[${N}, ${K}]·x`;
  note(`${measure}: check`);
  const problem = matvecProblem(shape, bench.seed);
  await using owned = new AsyncDisposableStack();
  const own = <S extends Side>(side: S): S => owned.use(side);
  const sides: Side[] = (await ourSides(gpu, problem, owned)).map(own);
  for (const rival of rivals) {
    sides.push(...(await rival.matvec(problem)).map(own));
  }
  const child = torch === undefined
    ? undefined
    : own(await torchMatvec(torch, problem, nCores));
  if (child) sides.push(child);
  note(`${measure}: times`);
  const measured = await timeInTurns(sides, timing);
  return {
    measure,
    sides: measured,
    ...(child && { torch: child.version }),
    comparisons: comparisonsOf(measure, 2 * N * K, measured),
  };
}

function comparisonsOf(
  measure: string,
  nBytes: number,
  measured: readonly Measured[],
): Comparison[] {
  const [one, two, eight, ...others] = measured as [
    Measured,
    Measured,
    Measured,
    ...Measured[],
  ];
  const fastest = (prefix: string, why: string): Measured | Missing =>
    others.filter(({ name }) => name.startsWith(prefix))
      .sort((a, b) => a.wallMs - b.wallMs)[0] ??
      { missing: `${prefix}: ${why}` };
  const reading = fastest("reading", "") as Measured;
  const against = (name: string, why: string, least?: number) =>
    compareSides(measure, one, fastest(name, why), least);
  return [
    against("jax-js", "not installed", 2.5),
    against("tfjs", "not installed"),
    against("PyTorch", "not named"),
    {
      ...compareSides(measure, one, reading, undefined),
      value: 100 * medianRatio(walls(reading), walls(one)),
      cpuValue: 100 * medianRatio(cpus(reading), cpus(one)),
      unit: "%",
      target: { bound: "least", value: 70 },
    },
    timesOneRow(measure, two, one, 1.3),
    timesOneRow(measure, eight, one, 2.5),
    {
      measure,
      ours: `${one.name}: ${formatMs(one.wallMs)}`,
      other: "",
      value: nBytes / one.wallMs / 1e6,
      cpuValue: undefined,
      unit: "GB/s",
      target: undefined,
    },
  ];
}

const walls = ({ samples }: Measured): number[] =>
  samples.map(({ wallMs }) => wallMs);
const cpus = ({ samples }: Measured): number[] =>
  samples.map(({ cpuMs }) => cpuMs);

/** How many times as long several rows take as one. */
function timesOneRow(
  measure: string,
  several: Measured,
  one: Measured,
  most: number,
): Comparison {
  return {
    measure,
    ours: `${several.name}: ${formatMs(several.wallMs)}`,
    other: `${one.name}: ${formatMs(one.wallMs)}`,
    value: medianRatio(walls(several), walls(one)),
    cpuValue: medianRatio(cpus(several), cpus(one)),
    unit: "×",
    target: { bound: "most", value: most },
  };
}

/** Ours, of several numbers of rows, and kernels that only read the same weights in the same order. */
async function ourSides(
  gpu: Gpu,
  problem: MatvecProblem,
  owned: AsyncDisposableStack,
): Promise<Side[]> {
  const { N, K, W, x } = problem;
  const B = gpu.upload("W", "bf16", [N, K], W);
  owned.adopt(B, async (B) => {
    await gpu.settled();
    B[Symbol.dispose]();
  });
  const side = (
    name: string,
    tensors: readonly Disposable[],
    record: (rec: Recorder) => void,
  ): Side => ({
    name,
    time: (times) =>
      timed(times, async () => {
        gpu.record(name, (rec) => {
          for (let i = 0; i < times; i++) record(rec);
        });
        await gpu.device.queue.onSubmittedWorkDone();
        gpu.throwIfFailed();
      }),
    async [Symbol.asyncDispose]() {
      await gpu.settled();
      for (const tensor of tensors) tensor[Symbol.dispose]();
    },
  });
  const sides: Side[] = [];
  for (const M of ROWS) {
    const A = gpu.floats("x", [M, K], x.slice(0, M * K));
    const C = gpu.tensor("y", "f32", [M, N]);
    const name = `ours, bf16, ${M} ${M === 1 ? "row" : "rows"}`;
    const record = (rec: Recorder) => matmul(rec, { layout: "mk,nk", A, B, C });
    gpu.record(name, record);
    const y = await gpu.read(C);
    checkMatvec(problem, name, y.subarray((M - 1) * N), 1e-3, M - 1);
    sides.push(side(name, [A, C], record));
  }
  for (const lanes of LANES) {
    const sums = gpu.tensor("sums", "u32", [N / 8, lanes]);
    const name = `reading W alone, ${lanes} lanes a row`;
    sides.push(
      side(
        name,
        [sums],
        (rec) => readSpeed.run(rec, { x: B, sums }, { LANES: lanes }),
      ),
    );
  }
  return sides;
}
