/**
 * Our side.
 * @module
 */
import { f32ToBf16 } from "../core/dtype.ts";
import type { Gpu } from "../gpu/mod.ts";
import { matmul, type MatmulLayout } from "../kernels/matmul.ts";
import type { StepMetrics } from "../train/metrics.ts";
import { SaeTrainer } from "../train/trainer.ts";
import {
  checkProduct,
  type MatmulProblem,
  type StepProblem,
  TIMED_LR,
  transposed,
} from "./problem.ts";
import { type Sample, type Side, type StepSide, timed } from "./side.ts";

/** How our products are taken: layout and type of both operands. */
export interface OurProduct {
  readonly layout: MatmulLayout;
  readonly dtype: "f32" | "bf16";
}

/** Our product; bf16 operands are packed. */
export async function ourProduct(
  gpu: Gpu,
  problem: MatmulProblem,
  { layout, dtype }: OurProduct,
): Promise<Side> {
  const { n } = problem;
  const name = `ours, ${dtype} ${layout}`;
  using owned = new DisposableStack();
  const upload = (
    label: string,
    values: Float32Array<ArrayBuffer>,
    isTransposed: boolean,
  ) => {
    const laid = isTransposed ? transposed(values, n, n) : values;
    const typed = dtype === "f32" ? laid : f32ToBf16(laid);
    return owned.use(gpu.upload(label, dtype, [n, n], typed));
  };
  const A = upload("A", problem.A, layout === "km,kn");
  const B = upload("B", problem.B, layout === "mk,nk");
  const C = owned.use(gpu.tensor("C", "f32", [n, n]));
  const record = (times: number): void =>
    gpu.record(name, (rec) => {
      for (let i = 0; i < times; i++) matmul(rec, { layout, A, B, C });
    });
  record(1);
  checkProduct(problem, name, (await gpu.read(C)).subarray(0, n));
  const kept = owned.move();
  return {
    name,
    time: (times) =>
      timed(times, async () => {
        record(times);
        await gpu.device.queue.onSubmittedWorkDone();
        gpu.throwIfFailed();
      }),
    async [Symbol.asyncDispose]() {
      await gpu.settled();
      kept.dispose();
    },
  };
}

/** Ways through a step. */
export type Path = StepMetrics["path"];

/** Our training step, on one path only. Unlike the others' it uploads its batch every time. */
export class OurStep implements StepSide {
  readonly name: string;
  /** Metrics of the last step of which they were taken. */
  last: StepMetrics | undefined;
  readonly #gpu: Gpu;
  readonly #problem: StepProblem;
  readonly #path: Path;
  /** The batch as residual shards hold it. */
  readonly #rows: Uint16Array<ArrayBuffer>;
  #trainer: SaeTrainer;
  #lr = TIMED_LR;

  constructor(gpu: Gpu, problem: StepProblem, path: Path) {
    this.name = `ours, ${path}`;
    this.#gpu = gpu;
    this.#problem = problem;
    this.#path = path;
    this.#rows = f32ToBf16(problem.x);
    this.#trainer = this.#begin();
  }

  #begin(): SaeTrainer {
    const { batch, d_model, d_sae, betas, eps, params } = this.#problem;
    return new SaeTrainer(
      this.#gpu,
      {
        batch,
        d_model,
        d_sae,
        betas,
        eps,
        inputScale: 1,
        // The others do not clip; the norm is taken nevertheless.
        clipNorm: 1e30,
        // Room for four times as many activations as the problem has.
        sparseEntries: this.#path === "dense"
          ? 0
          : 4 * this.#problem.L0 * batch,
      },
      params,
    );
  }

  start(lr: number): Promise<void> {
    this.#trainer[Symbol.dispose]();
    this.#trainer = this.#begin();
    this.#lr = lr;
    return Promise.resolve();
  }

  async losses(n: number): Promise<readonly number[]> {
    for (let i = 0; i < n; i++) this.#step({ metrics: true });
    const metrics = await this.#metrics();
    return metrics.map(({ loss }) => loss);
  }

  /**
   * @throws {Error} If the last step took another path than this side is of.
   */
  async time(n: number): Promise<Sample> {
    const sample = await timed(n, async () => {
      for (let i = 0; i < n; i++) this.#step({ metrics: i === n - 1 });
      await this.#metrics();
    });
    if (this.last?.path === this.#path) return sample;
    throw new Error(
      `Cannot time the ${this.#path} step: expected its path: got the ${this.last?.path} one at L0 = ${this.last?.L0}`,
    );
  }

  /** Kernel time of a step, by timestamps: each launch in a pass of its own. */
  async kernelMs(nSteps: number): Promise<{ ms: number; launches: number }> {
    const profile = this.#gpu.startProfile();
    for (let i = 0; i < nSteps; i++) this.#step({});
    const kernels = await profile.stop();
    const sum = (values: readonly number[]) =>
      values.reduce((a, b) => a + b, 0);
    return {
      ms: sum(kernels.map(({ ms }) => ms)) / nSteps,
      launches: sum(kernels.map(({ launches }) => launches)) / nSteps,
    };
  }

  #step(options: { readonly metrics?: boolean }): void {
    const { lambda } = this.#problem;
    this.#trainer.step(this.#rows, { lambda, lr: this.#lr }, options);
  }

  async #metrics(): Promise<readonly StepMetrics[]> {
    await this.#trainer.settle();
    const metrics = this.#trainer.takeMetrics();
    this.last = metrics.at(-1) ?? this.last;
    return metrics;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#gpu.settled();
    this.#trainer[Symbol.dispose]();
  }
}
