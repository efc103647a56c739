/**
 * PyTorch, eager, on the processor: a child process that takes turns with the other sides.
 * @module
 */
import { checkMatvec, type MatvecProblem } from "./matvec_problem.ts";
import type { StepProblem } from "./problem.ts";
import type { Sample, Side, StepSide } from "./side.ts";
import { TorchChild } from "./torch_child.ts";

/**
 * What the child runs. It reads one line of JSON with the sizes, then the numbers of
 * x, W_enc, b_enc, W_dec and b_dec as f32, then commands, a line each.
 */
const SCRIPT = `
import json, sys, time
import torch

stdin = sys.stdin.buffer
config = json.loads(stdin.readline())
torch.set_num_threads(config["threads"])
B, d, F = config["batch"], config["d_model"], config["d_sae"]

def read(*shape):
    count = torch.Size(shape).numel()
    return torch.frombuffer(bytearray(stdin.read(4 * count)), dtype=torch.float32).reshape(shape)

x = read(B, d)
initial = {"W_enc": read(F, d).t().contiguous(), "b_enc": read(F), "W_dec": read(F, d), "b_dec": read(d)}

def start(lr):
    global params, optimizer
    params = {name: torch.nn.Parameter(value.clone()) for name, value in initial.items()}
    optimizer = torch.optim.Adam(params.values(), lr=lr, betas=config["betas"], eps=config["eps"])

def step():
    acts = torch.relu(x @ params["W_enc"] + params["b_enc"])
    err = acts @ params["W_dec"] + params["b_dec"] - x
    l1 = (acts * params["W_dec"].norm(dim=1)).sum()
    loss = err.square().sum() / B + config["lambda"] * l1 / B
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss

def losses(n):
    return [step().item() for _ in range(n)]

def timing(n):
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(n):
        loss = step()
    loss.item()
    return [1000 * (time.perf_counter() - wall) / n, 1000 * (time.process_time() - cpu) / n]

def answer(value):
    print(json.dumps(value), flush=True)

answer(torch.__version__)
for line in stdin:
    name, value = json.loads(line)
    answer({"start": start, "losses": losses, "timing": timing}[name](value))
`;

/** The training step. */
export class TorchStep implements StepSide {
  readonly name = "PyTorch, dense";
  readonly #child: TorchChild;

  private constructor(child: TorchChild) {
    this.#child = child;
  }

  /**
   * Starts the child and gives it the problem.
   * @param python The interpreter.
   * @throws {Error} If it cannot be run, or has no PyTorch.
   */
  static async open(
    python: string,
    problem: StepProblem,
    threads: number,
  ): Promise<TorchStep> {
    const { batch, d_model, d_sae, lambda, betas, eps, x, params } = problem;
    const config = { batch, d_model, d_sae, lambda, betas, eps, threads };
    const { W_enc, b_enc, W_dec, b_dec } = params;
    const numbers = [x, W_enc, b_enc, W_dec, b_dec].map((values) =>
      Float32Array.from(values)
    );
    return new TorchStep(
      await TorchChild.open(python, SCRIPT, config, numbers),
    );
  }

  /** PyTorch's version. */
  get version(): string {
    return this.#child.version;
  }

  async start(lr: number): Promise<void> {
    await this.#child.ask("start", lr);
  }

  async losses(n: number): Promise<readonly number[]> {
    return await this.#child.ask("losses", n) as number[];
  }

  async time(n: number): Promise<Sample> {
    return await timeOf(this.#child, n);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#child[Symbol.asyncDispose]();
  }
}

async function timeOf(child: TorchChild, n: number): Promise<Sample> {
  const [wallMs, cpuMs] = await child.ask("timing", n) as [number, number];
  return { wallMs, cpuMs };
}

/** What the child of the matrix-vector product runs: x and W as bf16. */
const MATVEC_SCRIPT = `
import json, sys, time
import torch

stdin = sys.stdin.buffer
config = json.loads(stdin.readline())
torch.set_num_threads(config["threads"])
N, K = config["N"], config["K"]

def read(dtype, bytes, *shape):
    count = torch.Size(shape).numel()
    return torch.frombuffer(bytearray(stdin.read(bytes * count)), dtype=dtype).reshape(shape)

x = read(torch.float32, 4, 1, K).bfloat16()
W = read(torch.bfloat16, 2, N, K)
linear = torch.nn.functional.linear

def product(n):
    return linear(x, W)[0, :n].float().tolist()

def timing(n):
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(n):
        linear(x, W)
    return [1000 * (time.perf_counter() - wall) / n, 1000 * (time.process_time() - cpu) / n]

def answer(value):
    print(json.dumps(value), flush=True)

answer(torch.__version__)
for line in stdin:
    name, value = json.loads(line)
    answer({"product": product, "timing": timing}[name](value))
`;

/** The matrix-vector product in bf16, which PyTorch has kernels of the processor for. */
export async function torchMatvec(
  python: string,
  problem: MatvecProblem,
  threads: number,
): Promise<Side & { readonly version: string }> {
  const { N, K, x, W } = problem;
  const child = await TorchChild.open(
    python,
    MATVEC_SCRIPT,
    { N, K, threads },
    [x.subarray(0, K), W],
  );
  const y = await child.ask("product", N) as number[];
  // Its result has 8 bits.
  checkMatvec(problem, "PyTorch", y, 0.05);
  return {
    name: "PyTorch, bf16",
    version: child.version,
    time: (n) => timeOf(child, n),
    [Symbol.asyncDispose]: () => child[Symbol.asyncDispose](),
  };
}
