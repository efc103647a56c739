/**
 * The measures: which sides take part, and what is made of their times.
 * @module
 */
import type { Gpu } from "../gpu/mod.ts";
import {
  compareSides,
  type Comparison,
  formatMs,
  productRate,
} from "./compare.ts";
import type { MatvecShape } from "./matvec_problem.ts";
import { type OurProduct, ourProduct, OurStep } from "./ours.ts";
import {
  CHECK_LR,
  matmulProblem,
  type StepProblem,
  stepProblem,
  type StepShape,
  TIMED_LR,
} from "./problem.ts";
import type { RivalSides } from "./rivals.ts";
import {
  checkAgreement,
  type Measured,
  median,
  medianRatio,
  type Side,
  type StepSide,
  timeInTurns,
  type Timing,
} from "./side.ts";
import { TorchStep } from "./torch.ts";

/** Sizes of all measures. */
export interface Sizes {
  /** Rows and columns of the matrices. */
  readonly product: number;
  /** The step that is compared with others. */
  readonly step: StepShape;
  /** The step with many features, ours only. */
  readonly wide: StepShape;
  /** Weights that few rows meet: of OLMo-2 7B's MLP, down and half of up. */
  readonly matvec: readonly [down: MatvecShape, up: MatvecShape];
}

/** The sizes that the targets are about. */
export const SIZES: Sizes = {
  product: 1024,
  step: { batch: 1024, d_model: 256, d_sae: 2048, L0: 32 },
  wide: { batch: 512, d_model: 512, d_sae: 8192, L0: 64 },
  matvec: [[4096, 11_008], [11_008, 4096]],
};

/** Sizes that take no time, to see whether everything runs. */
export const TINY_SIZES: Sizes = {
  product: 64,
  step: { batch: 64, d_model: 32, d_sae: 256, L0: 8 },
  wide: { batch: 32, d_model: 32, d_sae: 512, L0: 8 },
  matvec: [[64, 96], [96, 64]],
};

/** What takes part in a measure. */
export interface Bench {
  readonly gpu: Gpu;
  readonly sizes: Sizes;
  readonly timing: Timing;
  readonly seed: number;
  /** Other libraries, with their devices. */
  readonly rivals: readonly RivalSides[];
  /** The interpreter; undefined without `--torch`. */
  readonly torch: string | undefined;
  readonly nCores: number;
  /** Says what is being done. */
  note(text: string): void;
}

/** The results of one measure. */
export interface Result {
  readonly measure: string;
  /** Every side that took part. */
  readonly sides: readonly Measured[];
  readonly comparisons: readonly Comparison[];
  /** Losses of the first steps, by side. */
  readonly losses?: Readonly<Record<string, readonly number[]>>;
  /** Active features in a row in the last sparse step timed. */
  readonly L0?: number;
  /** PyTorch's version, where it took part. */
  readonly torch?: string;
}

/** Steps whose losses must agree. */
const CHECKED_STEPS = 3;

/** A side that did not take part. */
export interface Missing {
  readonly missing: string;
}

/** What was measured of a side, or that it did not take part. */
function find(
  sides: readonly Measured[],
  name: string,
  why: string,
): Measured | Missing {
  return sides.find((side) => side.name === name) ??
    { missing: `${name}: ${why}` };
}

/** Ours; the first is of matrices as the rivals have them. */
const OUR_PRODUCTS: readonly OurProduct[] = [
  { layout: "mk,kn", dtype: "f32" },
  { layout: "mk,nk", dtype: "f32" },
  { layout: "km,kn", dtype: "f32" },
  { layout: "km,kn", dtype: "bf16" },
];

/** The product of square matrices: f32 in every layout, and both operands packed as bf16. */
export async function measureProduct(bench: Bench): Promise<Result> {
  const { gpu, sizes, timing, seed } = bench;
  const problem = matmulProblem(sizes.product, seed);
  await using owned = new AsyncDisposableStack();
  const sides: Side[] = [];
  const add = (side: Side) => void sides.push(owned.use(side));
  for (const ours of OUR_PRODUCTS) add(await ourProduct(gpu, problem, ours));
  for (const rival of bench.rivals) add(await rival.product(problem));
  const measured = await timeInTurns(sides, timing);
  const [first] = measured as [Measured, ...Measured[]];
  const measure = `product ${sizes.product}³`;
  const flop = 2 * sizes.product ** 3;
  const nCores = gpu.isSoftware ? bench.nCores : undefined;
  return {
    measure,
    sides: measured,
    comparisons: [
      ...OUR_PRODUCTS.map(({ dtype }, i) => {
        const least = dtype === "f32" ? 30 : 40;
        return productRate(measure, measured[i]!, { flop, nCores, least });
      }),
      ...["jax-js", "tfjs"].map((name) =>
        compareSides(
          measure,
          first,
          find(measured, name, "not installed"),
          undefined,
        )
      ),
    ],
  };
}

/** The step that others take too. */
export async function measureStep(bench: Bench): Promise<Result> {
  const { gpu, sizes, seed, rivals, torch } = bench;
  const problem = await stepProblem(gpu, sizes.step, seed);
  await using owned = new AsyncDisposableStack();
  const dense = owned.use(new OurStep(gpu, problem, "dense"));
  const sparse = owned.use(new OurStep(gpu, problem, "sparse"));
  const others: StepSide[] = rivals.map((rival) =>
    owned.use(rival.step(problem))
  );
  const child = torch === undefined
    ? undefined
    : owned.use(await TorchStep.open(torch, problem, bench.nCores));
  if (child) others.push(child);
  const { measured, losses } = await timeSteps(bench, problem, [
    dense,
    sparse,
    ...others,
  ]);
  const [ourDense, ourSparse] = measured as [Measured, Measured];
  const measure = `step ${describe(problem)}`;
  const against = (
    ours: Measured,
    name: string,
    least: number,
    why = "not installed",
  ) => compareSides(measure, ours, find(measured, name, why), least);
  return {
    measure,
    sides: measured,
    losses,
    ...(sparse.last && { L0: sparse.last.L0 }),
    ...(child && { torch: child.version }),
    comparisons: [
      against(ourDense, "jax-js", 5),
      against(ourDense, "tfjs", 8),
      compareSides(measure, ourSparse, ourDense, 3.5),
      against(ourSparse, "PyTorch, dense", 1, "not named"),
      await outsideKernels(bench, dense),
      await outsideKernels(bench, sparse),
    ],
  };
}

/** The step with many features: our two paths. */
export async function measureWide(bench: Bench): Promise<Result> {
  const { gpu, sizes, seed } = bench;
  const problem = await stepProblem(gpu, sizes.wide, seed);
  await using owned = new AsyncDisposableStack();
  const sparse = owned.use(new OurStep(gpu, problem, "sparse"));
  const { measured, losses } = await timeSteps(bench, problem, [
    owned.use(new OurStep(gpu, problem, "dense")),
    sparse,
  ]);
  const [ourDense, ourSparse] = measured as [Measured, Measured];
  const measure = `step ${describe(problem)}`;
  return {
    measure,
    sides: measured,
    losses,
    ...(sparse.last && { L0: sparse.last.L0 }),
    comparisons: [compareSides(measure, ourSparse, ourDense, 4)],
  };
}

/** Checks that the sides compute the same, then times them. */
async function timeSteps(
  { timing, note }: Bench,
  problem: StepProblem,
  sides: readonly StepSide[],
): Promise<
  {
    measured: readonly Measured[];
    losses: Readonly<Record<string, readonly number[]>>;
  }
> {
  note(`step ${describe(problem)}: first losses`);
  const losses = new Map<string, readonly number[]>();
  for (const side of sides) {
    await side.start(CHECK_LR);
    losses.set(side.name, await side.losses(CHECKED_STEPS));
    await side.start(TIMED_LR);
  }
  checkAgreement(losses);
  note(`step ${describe(problem)}: times`);
  const measured = await timeInTurns(sides, timing);
  return { measured, losses: Object.fromEntries(losses) };
}

/** Share of a step's wall time that no kernel accounts for; the two are measured in turns. */
async function outsideKernels(
  { timing, sizes, note }: Bench,
  side: OurStep,
): Promise<Comparison> {
  note(`time outside kernels, ${side.name}`);
  const { launches } = await side.kernelMs(1);
  // A profile holds 2048 launches.
  const nProfiled = Math.max(1, Math.min(10, Math.floor(2000 / launches)));
  const wall: number[] = [];
  const kernels: number[] = [];
  for (let r = 0; r < timing.repeats; r++) {
    const { wallMs } = await side.time(1);
    const n = Math.max(1, Math.min(50, Math.ceil(timing.sampleMs / wallMs)));
    wall.push((await side.time(n)).wallMs);
    kernels.push((await side.kernelMs(nProfiled)).ms);
  }
  return {
    measure: `time outside kernels, step ${describe(sizes.step)}`,
    ours: `${side.name}: ${formatMs(median(wall))}`,
    other: `its ${launches} launches, timed one by one: ${
      formatMs(median(kernels))
    }`,
    value: 100 * (1 - medianRatio(kernels, wall)),
    unit: "%",
    cpuValue: undefined,
    target: { bound: "most", value: 5 },
  };
}

function describe({ batch, d_model, d_sae, L0 }: StepShape): string {
  return `x[${batch}, ${d_model}], F = ${d_sae}, L0 ≈ ${L0}`;
}
