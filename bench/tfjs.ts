/**
 * TensorFlow.js on WebGPU. Tensors are read with `data()`: `dataSync()` needs a canvas.
 * @module
 */
import { bf16ToF32 } from "../core/dtype.ts";
import { checkMatvec, type MatvecProblem } from "./matvec_problem.ts";
import {
  checkProduct,
  type MatmulProblem,
  type StepProblem,
  TIMED_LR,
  transposed,
} from "./problem.ts";
import { DeviceWatch, type Rivals, type RivalSides } from "./rivals.ts";
import { type Sample, type Side, type StepSide, timed } from "./side.ts";

/** A tensor of tfjs, as far as it is used. */
interface TfTensor {
  add(other: TfTensor): TfTensor;
  sub(other: TfTensor): TfTensor;
  mul(other: TfTensor | number): TfTensor;
  matMul(
    other: TfTensor,
    isTransposed?: boolean,
    otherIsTransposed?: boolean,
  ): TfTensor;
  relu(): TfTensor;
  square(): TfTensor;
  sqrt(): TfTensor;
  sum(axis?: number): TfTensor;
  slice(begin: readonly number[], size: readonly number[]): TfTensor;
  data(): Promise<ArrayLike<number>>;
  dispose(): void;
}

interface TfVariable extends TfTensor {
  assign(values: TfTensor): void;
}

interface TfOptimizer {
  applyGradients(gradients: unknown): void;
  dispose(): void;
}

interface Tf {
  setBackend(name: string): Promise<boolean>;
  ready(): Promise<void>;
  backend(): { readonly device: GPUDevice };
  tensor(values: Float32Array, shape: readonly number[]): TfTensor;
  variable(values: TfTensor): TfVariable;
  variableGrads(
    f: () => TfTensor,
    variables: readonly TfVariable[],
  ): { readonly value: TfTensor; readonly grads: Record<string, TfTensor> };
  dispose(container: unknown): void;
  readonly train: {
    adam(lr: number, beta1: number, beta2: number, eps: number): TfOptimizer;
  };
}

/** tfjs with a device of its own. */
export class TfjsSides implements RivalSides {
  readonly #tf: Tf;
  readonly #watch: DeviceWatch;

  private constructor(tf: Tf, watch: DeviceWatch) {
    this.#tf = tf;
    this.#watch = watch;
  }

  /**
   * Opens its device.
   * @throws {Error} If it finds none, or another than ours.
   */
  static async open(rivals: Rivals, adapter: string): Promise<TfjsSides> {
    const tf = rivals.load<Tf>("@tensorflow/tfjs");
    rivals.load("@tensorflow/tfjs-backend-webgpu"); // registers itself
    if (!await tf.setBackend("webgpu")) {
      throw new Error("Cannot compare with tfjs: it found no WebGPU device");
    }
    await tf.ready();
    const watch = new DeviceWatch("tfjs", tf.backend().device, adapter);
    return new TfjsSides(tf, watch);
  }

  /** The product. */
  async product(problem: MatmulProblem): Promise<Side> {
    const { n } = problem;
    const A = this.#tf.tensor(problem.A, [n, n]);
    const B = this.#tf.tensor(problem.B, [n, n]);
    const watch = this.#watch;
    const lastRow = async (times: number): Promise<ArrayLike<number>> => {
      for (let i = 1; i < times; i++) A.matMul(B).dispose();
      const C = A.matMul(B);
      const row = C.slice([0, 0], [1, n]);
      const values = await row.data();
      watch.throwIfFailed();
      for (const tensor of [C, row]) tensor.dispose();
      return values;
    };
    checkProduct(problem, "tfjs", await lastRow(1));
    return {
      name: "tfjs",
      time: (times) => timed(times, async () => void await lastRow(times)),
      [Symbol.asyncDispose]() {
        A.dispose();
        B.dispose();
        return Promise.resolve();
      },
    };
  }

  /** The product of a row with weights, which lie as ours do, in two halves. */
  async matvec(problem: MatvecProblem): Promise<Side[]> {
    const { N, K, x, W } = problem;
    const half = N / 2;
    const row = this.#tf.tensor(x.slice(0, K), [1, K]);
    const parts = [0, 1].map((i) =>
      this.#tf.tensor(
        bf16ToF32(W.subarray(i * half * K, (i + 1) * half * K)),
        [half, K],
      )
    );
    const watch = this.#watch;
    const last = async (times: number): Promise<number[]> => {
      const multiply = () => parts.map((part) => row.matMul(part, false, true));
      for (let i = 1; i < times; i++) multiply().forEach((y) => y.dispose());
      const ys = multiply();
      const values: number[] = [];
      for (const y of ys) values.push(...Array.from(await y.data()));
      watch.throwIfFailed();
      ys.forEach((y) => y.dispose());
      return values;
    };
    checkMatvec(problem, "tfjs", await last(1));
    return [{
      name: "tfjs, f32",
      time: (times) => timed(times, async () => void await last(times)),
      [Symbol.asyncDispose]() {
        for (const tensor of [row, ...parts]) tensor.dispose();
        return Promise.resolve();
      },
    }];
  }

  /** The training step: variableGrads and the Adam optimizer. */
  step(problem: StepProblem): StepSide {
    return new TfjsStep(this.#tf, this.#watch, problem);
  }

  /** Destroys the device. */
  [Symbol.dispose](): void {
    this.#watch.dispose();
  }
}

class TfjsStep implements StepSide {
  readonly name = "tfjs";
  readonly #tf: Tf;
  readonly #watch: DeviceWatch;
  readonly #problem: StepProblem;
  readonly #x: TfTensor;
  readonly #variables: Readonly<
    Record<"W_enc" | "b_enc" | "W_dec" | "b_dec", TfVariable>
  >;
  #optimizer: TfOptimizer;

  constructor(tf: Tf, watch: DeviceWatch, problem: StepProblem) {
    const { batch, d_model, x } = problem;
    this.#tf = tf;
    this.#watch = watch;
    this.#problem = problem;
    this.#x = tf.tensor(x, [batch, d_model]);
    const { W_enc, b_enc, W_dec, b_dec } = startValues(tf, problem);
    this.#variables = {
      W_enc: tf.variable(W_enc),
      b_enc: tf.variable(b_enc),
      W_dec: tf.variable(W_dec),
      b_dec: tf.variable(b_dec),
    };
    this.#optimizer = this.#makeOptimizer(TIMED_LR);
  }

  #makeOptimizer(lr: number): TfOptimizer {
    const { betas: [beta1, beta2], eps } = this.#problem;
    return this.#tf.train.adam(lr, beta1, beta2, eps);
  }

  start(lr: number): Promise<void> {
    this.#optimizer.dispose();
    this.#optimizer = this.#makeOptimizer(lr);
    const values = startValues(this.#tf, this.#problem);
    for (const name of Object.keys(values) as (keyof typeof values)[]) {
      this.#variables[name].assign(values[name]);
    }
    return Promise.resolve();
  }

  async losses(n: number): Promise<readonly number[]> {
    const losses: number[] = [];
    for (let i = 0; i < n; i++) {
      const loss = this.#next();
      losses.push((await loss.data())[0]!);
      loss.dispose();
    }
    this.#watch.throwIfFailed();
    return losses;
  }

  time(n: number): Promise<Sample> {
    return timed(n, async () => {
      const losses = Array.from({ length: n }, () => this.#next());
      // The queue runs in order, and the last command is the update of b_dec.
      await Promise.all(
        [losses.at(-1)!, this.#variables.b_dec].map((tensor) => tensor.data()),
      );
      this.#watch.throwIfFailed();
      for (const loss of losses) loss.dispose();
    });
  }

  #next(): TfTensor {
    const { value, grads } = this.#tf.variableGrads(
      () => this.#loss(),
      Object.values(this.#variables),
    );
    this.#optimizer.applyGradients(grads);
    this.#tf.dispose(grads);
    return value;
  }

  #loss(): TfTensor {
    const { W_enc, b_enc, W_dec, b_dec } = this.#variables;
    const { batch, lambda } = this.#problem;
    const acts = this.#x.matMul(W_enc).add(b_enc).relu();
    const norms = W_dec.square().sum(1).sqrt();
    const err = acts.matMul(W_dec).add(b_dec).sub(this.#x);
    const mse = err.square().sum().mul(1 / batch);
    return mse.add(acts.mul(norms).sum().mul(lambda / batch));
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.#optimizer.dispose();
    for (const owned of [this.#x, ...Object.values(this.#variables)]) {
      owned.dispose();
    }
    return Promise.resolve();
  }
}

function startValues(tf: Tf, { params, d_model, d_sae }: StepProblem) {
  return {
    W_enc: tf.tensor(transposed(params.W_enc, d_sae, d_model), [
      d_model,
      d_sae,
    ]),
    b_enc: tf.tensor(params.b_enc, [d_sae]),
    W_dec: tf.tensor(params.W_dec, [d_sae, d_model]),
    b_dec: tf.tensor(params.b_dec, [d_model]),
  };
}
