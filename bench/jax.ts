/**
 * jax-js on WebGPU. Its functions take their arguments' ownership: `.ref` keeps one.
 * It runs lazily: what is disposed of before a wait may never have been computed.
 * @module
 */
import { checkMatvec, type MatvecProblem } from "./matvec_problem.ts";
import { bf16ToF32 } from "../core/dtype.ts";
import {
  checkProduct,
  type MatmulProblem,
  type StepProblem,
  TIMED_LR,
  transposed,
} from "./problem.ts";
import { DeviceWatch, type Rivals, type RivalSides } from "./rivals.ts";
import { type Sample, type Side, type StepSide, timed } from "./side.ts";

/** An array of jax-js, as far as it is used. */
interface JaxArray {
  readonly ref: JaxArray;
  add(other: JaxArray | number): JaxArray;
  sub(other: JaxArray): JaxArray;
  mul(other: JaxArray | number): JaxArray;
  div(other: JaxArray): JaxArray;
  sum(axis?: number): JaxArray;
  reshape(shape: readonly number[]): JaxArray;
  transpose(): JaxArray;
  slice(row: number): JaxArray;
  data(): Promise<ArrayLike<number>>;
  dispose(): void;
}

/** Arrays by the parameter's name. */
type Tree = Readonly<Record<string, JaxArray>>;

/** What Adam keeps. */
interface State {
  readonly params: Tree;
  readonly m: Tree;
  readonly v: Tree;
}

/** Numbers of a step: 1/(1 − β₁ᵗ), 1/(1 − β₂ᵗ), lr. */
type StepScalars = readonly [JaxArray, JaxArray, JaxArray];

interface Jax {
  init(device: string): Promise<readonly string[]>;
  defaultDevice(device: string): string;
  getWebGPUDevice(): GPUDevice;
  blockUntilReady<T>(tree: T): Promise<T>;
  jit<F>(f: F): F & { dispose(): void };
  valueAndGrad(
    f: (params: Tree, x: JaxArray) => JaxArray,
  ): (params: Tree, x: JaxArray) => [JaxArray, Tree];
  readonly nn: { relu(x: JaxArray): JaxArray };
  readonly tree: { dispose(tree: unknown): void };
  readonly numpy: {
    array(
      values: Float32Array | Float16Array | number,
      options?: { readonly dtype: unknown },
    ): JaxArray;
    readonly float16: unknown;
    zeros(shape: readonly number[]): JaxArray;
    matmul(a: JaxArray, b: JaxArray): JaxArray;
    square(x: JaxArray): JaxArray;
    sqrt(x: JaxArray): JaxArray;
  };
}

/** jax-js with a device of its own. */
export class JaxSides implements RivalSides {
  readonly #jax: Jax;
  readonly #watch: DeviceWatch;

  private constructor(jax: Jax, watch: DeviceWatch) {
    this.#jax = jax;
    this.#watch = watch;
  }

  /**
   * Opens its device.
   * @throws {Error} If it finds none, or another than ours.
   */
  static async open(rivals: Rivals, adapter: string): Promise<JaxSides> {
    const jax = rivals.load<Jax>("@jax-js/jax");
    const devices = await jax.init("webgpu");
    if (!devices.includes("webgpu")) {
      throw new Error("Cannot compare with jax-js: it found no WebGPU device");
    }
    jax.defaultDevice("webgpu");
    const watch = new DeviceWatch("jax-js", jax.getWebGPUDevice(), adapter);
    return new JaxSides(jax, watch);
  }

  /** The product. */
  async product(problem: MatmulProblem): Promise<Side> {
    const { n } = problem;
    const { numpy, blockUntilReady } = this.#jax;
    const A = numpy.array(problem.A).reshape([n, n]);
    const B = numpy.array(problem.B).reshape([n, n]);
    const C = numpy.matmul(A.ref, B.ref);
    checkProduct(problem, "jax-js", await C.slice(0).data());
    const watch = this.#watch;
    return {
      name: "jax-js",
      time: (times) =>
        timed(times, async () => {
          const all = Array.from(
            { length: times },
            () => numpy.matmul(A.ref, B.ref),
          );
          await blockUntilReady(all);
          watch.throwIfFailed();
          for (const C of all) C.dispose();
        }),
      [Symbol.asyncDispose]() {
        A.dispose();
        B.dispose();
        return Promise.resolve();
      },
    };
  }

  /** The product of rows with weights, which lie as ours do, in both of its types; in two halves where a binding does not hold all. */
  async matvec(problem: MatvecProblem): Promise<Side[]> {
    const { N, K, x, W } = problem;
    const { numpy } = this.#jax;
    const row = x.subarray(0, K);
    const half = N / 2;
    const halves = [W.subarray(0, half * K), W.subarray(half * K)];
    const f16 = (values: Float32Array) =>
      numpy.array(Float16Array.from(values), { dtype: numpy.float16 });
    return [
      await this.#matvec("jax-js, f32", problem, {
        x: numpy.array(row).reshape([1, K]),
        parts: halves.map((part) =>
          numpy.array(bf16ToF32(part)).reshape([half, K])
        ),
        tolerance: 1e-3,
      }),
      await this.#matvec("jax-js, f16", problem, {
        x: f16(row).reshape([1, K]),
        parts: [f16(bf16ToF32(W)).reshape([N, K])],
        tolerance: 0.02,
      }),
    ];
  }

  async #matvec(
    name: string,
    problem: MatvecProblem,
    { x, parts, tolerance }: {
      x: JaxArray;
      parts: readonly JaxArray[];
      tolerance: number;
    },
  ): Promise<Side> {
    const { numpy, blockUntilReady } = this.#jax;
    const multiply = () =>
      parts.map((part) => numpy.matmul(x.ref, part.ref.transpose()));
    const y: number[] = [];
    for (const part of multiply()) y.push(...Array.from(await part.data()));
    checkMatvec(problem, name, y, tolerance);
    const watch = this.#watch;
    return {
      name,
      time: (times) =>
        timed(times, async () => {
          const all = Array.from({ length: times }, multiply).flat();
          await blockUntilReady(all);
          watch.throwIfFailed();
          for (const y of all) y.dispose();
        }),
      [Symbol.asyncDispose]() {
        for (const array of [x, ...parts]) array.dispose();
        return Promise.resolve();
      },
    };
  }

  /** The training step: one jit function of value, gradients and Adam. */
  step(problem: StepProblem): StepSide {
    return new JaxStep(this.#jax, this.#watch, problem);
  }

  /** Destroys the device. */
  [Symbol.dispose](): void {
    this.#watch.dispose();
  }
}

class JaxStep implements StepSide {
  readonly name = "jax-js";
  readonly #jax: Jax;
  readonly #watch: DeviceWatch;
  readonly #problem: StepProblem;
  readonly #step: ReturnType<typeof compileStep>;
  readonly #x: JaxArray;
  #state: State;
  #t = 0;
  #lr = TIMED_LR;

  constructor(jax: Jax, watch: DeviceWatch, problem: StepProblem) {
    this.#jax = jax;
    this.#watch = watch;
    this.#problem = problem;
    this.#x = jax.numpy.array(problem.x)
      .reshape([problem.batch, problem.d_model]);
    this.#step = compileStep(jax, problem);
    this.#state = startState(jax, problem);
  }

  start(lr: number): Promise<void> {
    this.#jax.tree.dispose(this.#state);
    this.#state = startState(this.#jax, this.#problem);
    this.#t = 0;
    this.#lr = lr;
    return Promise.resolve();
  }

  async losses(n: number): Promise<readonly number[]> {
    const losses: number[] = [];
    for (let i = 0; i < n; i++) {
      losses.push((await this.#next().data())[0]!);
    }
    this.#watch.throwIfFailed();
    return losses;
  }

  time(n: number): Promise<Sample> {
    return timed(n, async () => {
      const losses = Array.from({ length: n }, () => this.#next());
      await this.#jax.blockUntilReady([losses, this.#state]);
      this.#watch.throwIfFailed();
      for (const loss of losses) loss.dispose();
    });
  }

  #next(): JaxArray {
    const { array } = this.#jax.numpy;
    const { betas: [beta1, beta2] } = this.#problem;
    const t = ++this.#t;
    const [loss, state] = this.#step(this.#state, this.#x.ref, [
      array(1 / (1 - beta1 ** t)),
      array(1 / (1 - beta2 ** t)),
      array(this.#lr),
    ]);
    this.#state = state;
    return loss;
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.#jax.tree.dispose(this.#state);
    this.#x.dispose();
    this.#step.dispose();
    return Promise.resolve();
  }
}

function startState(jax: Jax, { params, d_model, d_sae }: StepProblem): State {
  const { array, zeros } = jax.numpy;
  const shapes: Readonly<Record<string, readonly number[]>> = {
    W_enc: [d_model, d_sae],
    b_enc: [d_sae],
    W_dec: [d_sae, d_model],
    b_dec: [d_model],
  };
  const values: Readonly<Record<string, Float32Array>> = {
    W_enc: transposed(params.W_enc, d_sae, d_model),
    b_enc: params.b_enc,
    W_dec: params.W_dec,
    b_dec: params.b_dec,
  };
  const tree = (make: (name: string) => JaxArray): Tree =>
    Object.fromEntries(Object.keys(shapes).map((name) => [name, make(name)]));
  return {
    params: tree((name) => array(values[name]!).reshape(shapes[name]!)),
    m: tree((name) => zeros(shapes[name]!)),
    v: tree((name) => zeros(shapes[name]!)),
  };
}

function compileStep(jax: Jax, problem: StepProblem) {
  const { betas: [beta1, beta2], eps } = problem;
  const { square, sqrt } = jax.numpy;
  const valueAndGrad = jax.valueAndGrad(lossOf(jax, problem));
  return jax.jit((
    { params, m, v }: State,
    x: JaxArray,
    [mScale, vScale, lr]: StepScalars,
  ): [JaxArray, State] => {
    const names = Object.keys(params);
    const kept = Object.fromEntries(
      names.map((name) => [name, params[name]!.ref]),
    );
    const [loss, grads] = valueAndGrad(kept, x);
    const next = names.map((name) => {
      const grad = grads[name]!;
      const nextM = m[name]!.mul(beta1).add(grad.ref.mul(1 - beta1));
      const nextV = v[name]!.mul(beta2).add(square(grad).mul(1 - beta2));
      const root = sqrt(nextV.ref.mul(vScale.ref)).add(eps);
      const change = nextM.ref.mul(mScale.ref).div(root).mul(lr.ref);
      return { name, p: params[name]!.sub(change), m: nextM, v: nextV };
    });
    for (const scalar of [mScale, vScale, lr]) scalar.dispose();
    const tree = (of: (entry: typeof next[number]) => JaxArray): Tree =>
      Object.fromEntries(next.map((entry) => [entry.name, of(entry)]));
    return [loss, {
      params: tree(({ p }) => p),
      m: tree(({ m }) => m),
      v: tree(({ v }) => v),
    }];
  });
}

function lossOf(
  { nn, numpy: { matmul, square, sqrt } }: Jax,
  { batch, lambda }: StepProblem,
): (params: Tree, x: JaxArray) => JaxArray {
  return (params, x) => {
    const { W_enc, b_enc, W_dec, b_dec } = params as Readonly<
      Record<"W_enc" | "b_enc" | "W_dec" | "b_dec", JaxArray>
    >;
    const acts = nn.relu(matmul(x.ref, W_enc).add(b_enc));
    const norms = sqrt(square(W_dec.ref).sum(1));
    const err = matmul(acts.ref, W_dec).add(b_dec).sub(x);
    const mse = square(err).sum().mul(1 / batch);
    return mse.add(acts.mul(norms).sum().mul(lambda / batch));
  };
}
