/**
 * What all sides compute: the same numbers for everybody.
 * @module
 */
import { bf16ToF32, f32ToBf16 } from "../core/dtype.ts";
import { Rng } from "../core/rng.ts";
import type { Gpu } from "../gpu/mod.ts";
import { matmul } from "../kernels/matmul.ts";
import { initSae, type SaeParams } from "../train/init.ts";

/** A square product C = A·B. */
export interface MatmulProblem {
  /** Rows and columns of all three. */
  readonly n: number;
  /** `[n, n]` */
  readonly A: Float32Array<ArrayBuffer>;
  /** `[n, n]` */
  readonly B: Float32Array<ArrayBuffer>;
}

/** Sizes of a training step. */
export interface StepShape {
  readonly batch: number;
  readonly d_model: number;
  readonly d_sae: number;
  /** How many features are active in a row at the start, on average. */
  readonly L0: number;
}

/**
 * A training step: acts = relu(x·W_encᵀ + b_enc), x̂ = acts·W_dec + b_dec,
 * loss = mean_t Σ_j (x̂ − x)² + λ·mean_t Σ_i acts_i·‖W_dec_i‖, Adam on all four parameters.
 */
export interface StepProblem extends StepShape {
  readonly lambda: number;
  readonly betas: readonly [number, number];
  readonly eps: number;
  /** `[batch, d_model]`; bf16 holds them exactly, as residual shards do. */
  readonly x: Float32Array<ArrayBuffer>;
  readonly params: SaeParams;
}

/** A learning rate that changes the losses of the first steps by percents: to see whether all sides update alike. */
export const CHECK_LR = 1e-3;
/** A learning rate that keeps the number of active features through all timed steps. */
export const TIMED_LR = 1e-7;

function normals(rng: Rng, n: number): Float32Array<ArrayBuffer> {
  return Float32Array.from({ length: n }, () => rng.normal());
}

/** Two matrices of normal numbers that bf16 holds exactly, so that every side multiplies the same. */
export function matmulProblem(n: number, seed: number): MatmulProblem {
  const rng = new Rng(seed);
  const values = () => bf16ToF32(f32ToBf16(normals(rng, n * n)));
  return { n, A: values(), B: values() };
}

/**
 * Sees to it that a product was computed: some of its first row against float64.
 * @throws {RangeError} If an element differs.
 */
export function checkProduct(
  { n, A, B }: MatmulProblem,
  name: string,
  firstRow: ArrayLike<number>,
): void {
  for (let j = 0; j < Math.min(n, firstRow.length); j += 7) {
    let wanted = 0;
    for (let k = 0; k < n; k++) wanted += A[k]! * B[k * n + j]!;
    // Sums of n products of normal numbers are about √n large; f32 stays within a thousandth of that.
    if (Math.abs(firstRow[j]! - wanted) <= 1e-3 * Math.sqrt(n)) continue;
    throw new RangeError(
      `Cannot compare ${name}: expected C[0, ${j}] = ${wanted}: got ${
        firstRow[j]
      }: it does not compute the product`,
    );
  }
}

/** Normal rows, and parameters with which `L0` features are active in a row on average. */
export async function stepProblem(
  gpu: Gpu,
  shape: StepShape,
  seed: number,
): Promise<StepProblem> {
  const { batch, d_model, d_sae, L0 } = shape;
  const x = bf16ToF32(f32ToBf16(normals(new Rng(seed), batch * d_model)));
  const params = initSae(new Float64Array(d_model), d_sae, seed);
  const pre = await preActivations(gpu, shape, x, params.W_enc);
  params.b_enc.fill(-thresholdOf(pre, L0 * batch));
  return {
    ...shape,
    lambda: 1,
    betas: [0.9, 0.999],
    eps: 1e-8,
    x,
    params,
  };
}

async function preActivations(
  gpu: Gpu,
  { batch, d_model, d_sae }: StepShape,
  x: Float32Array<ArrayBuffer>,
  W_enc: Float32Array<ArrayBuffer>,
): Promise<Float32Array> {
  using A = gpu.floats("x", [batch, d_model], x);
  using B = gpu.floats("W_enc", [d_sae, d_model], W_enc);
  using C = gpu.tensor("pre", "f32", [batch, d_sae]);
  gpu.record("pre", (rec) => matmul(rec, { layout: "mk,nk", A, B, C }));
  return await gpu.read(C);
}

/** The value that `wanted` of the values exceed, by bisection. */
function thresholdOf(values: Float32Array, wanted: number): number {
  let [low, high] = [0, values.reduce((a, b) => Math.max(a, b), 0)];
  for (let i = 0; i < 40; i++) {
    const middle = (low + high) / 2;
    let above = 0;
    for (const value of values) if (value > middle) above++;
    if (above > wanted) low = middle;
    else high = middle;
  }
  return high;
}

/** A matrix `[rows, columns]` as `[columns, rows]`. */
export function transposed(
  values: Float32Array,
  rows: number,
  columns: number,
): Float32Array<ArrayBuffer> {
  const result = new Float32Array(values.length);
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < columns; c++) {
      result[c * rows + r] = values[r * columns + c]!;
    }
  }
  return result;
}
