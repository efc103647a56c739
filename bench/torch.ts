/**
 * PyTorch, eager, on the processor: a child process that takes turns with the other sides.
 * @module
 */
import type { StepProblem } from "./problem.ts";
import type { Sample, StepSide } from "./side.ts";

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

/** A child process of an interpreter with PyTorch. */
export class TorchStep implements StepSide {
  readonly name = "PyTorch, dense";
  /** PyTorch's version. */
  readonly version: string;
  readonly #child: Deno.ChildProcess;
  readonly #input: WritableStreamDefaultWriter<Uint8Array<ArrayBuffer>>;
  readonly #lines: AsyncIterator<string>;

  private constructor(
    child: Deno.ChildProcess,
    input: WritableStreamDefaultWriter<Uint8Array<ArrayBuffer>>,
    lines: AsyncIterator<string>,
    version: string,
  ) {
    this.#child = child;
    this.#input = input;
    this.#lines = lines;
    this.version = version;
  }

  /**
   * Starts the child and gives it the problem.
   * @param python The interpreter.
   * @throws {Error} If it cannot be run, or has no PyTorch.
   */
  static async open(
    python: string,
    problem: StepProblem,
    nThreads: number,
  ): Promise<TorchStep> {
    const { batch, d_model, d_sae, lambda, betas, eps, x, params } = problem;
    const child = new Deno.Command(python, {
      args: ["-c", SCRIPT],
      stdin: "piped",
      stdout: "piped",
    }).spawn();
    const input = child.stdin.getWriter();
    const config = {
      batch,
      d_model,
      d_sae,
      lambda,
      betas,
      eps,
      threads: nThreads,
    };
    const lines = linesOf(child.stdout);
    try {
      await input.write(encodeLine(config));
      const { W_enc, b_enc, W_dec, b_dec } = params;
      for (const values of [x, W_enc, b_enc, W_dec, b_dec]) {
        await input.write(
          new Uint8Array(values.buffer, values.byteOffset, values.byteLength),
        );
      }
    } catch {
      // It has ended, as its missing answer says in a moment.
    }
    const version = await answerOf(lines, python);
    return new TorchStep(child, input, lines, String(version));
  }

  async start(lr: number): Promise<void> {
    await this.#ask("start", lr);
  }

  async losses(n: number): Promise<readonly number[]> {
    return await this.#ask("losses", n) as number[];
  }

  async time(n: number): Promise<Sample> {
    const [wallMs, cpuMs] = await this.#ask("timing", n) as [number, number];
    return { wallMs, cpuMs };
  }

  async #ask(command: string, value: number): Promise<unknown> {
    await this.#input.write(encodeLine([command, value]));
    return await answerOf(this.#lines, "PyTorch");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#input.close();
    await this.#child.status;
  }
}

function encodeLine(value: unknown): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(`${JSON.stringify(value)}\n`);
}

async function answerOf(
  lines: AsyncIterator<string>,
  who: string,
): Promise<unknown> {
  const { value, done } = await lines.next();
  if (!done) return JSON.parse(value);
  throw new Error(
    `Cannot compare with PyTorch: expected answers of ${who}: got none: it needs the package torch`,
  );
}

async function* linesOf(
  bytes: ReadableStream<Uint8Array<ArrayBuffer>>,
): AsyncGenerator<string> {
  let rest = "";
  for await (const text of bytes.pipeThrough(new TextDecoderStream())) {
    const parts = (rest + text).split("\n");
    rest = parts.pop()!;
    yield* parts;
  }
}
