/**
 * A child process of an interpreter with PyTorch, which takes turns with the other sides.
 * @module
 */

/** Numbers that the child gets at its start, one array after the other. */
type Numbers = Float32Array<ArrayBuffer> | Uint16Array<ArrayBuffer>;

/** The child. It prints PyTorch's version as JSON when it is ready, then answers commands, a line of JSON each. */
export class TorchChild implements AsyncDisposable {
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
   * Starts the child and gives it a line of JSON and numbers.
   * @param python The interpreter.
   * @throws {Error} If it cannot be run, or has no PyTorch.
   */
  static async open(
    python: string,
    script: string,
    config: unknown,
    numbers: readonly Numbers[],
  ): Promise<TorchChild> {
    const child = new Deno.Command(python, {
      args: ["-c", script],
      stdin: "piped",
      stdout: "piped",
    }).spawn();
    const input = child.stdin.getWriter();
    const lines = linesOf(child.stdout);
    try {
      await input.write(encodeLine(config));
      for (const values of numbers) {
        await input.write(
          new Uint8Array(values.buffer, values.byteOffset, values.byteLength),
        );
      }
    } catch {
      // It has ended, as its missing answer says in a moment.
    }
    const version = await answerOf(lines, python);
    return new TorchChild(child, input, lines, String(version));
  }

  /** Sends a command and waits for its answer. */
  async ask(command: string, value: number): Promise<unknown> {
    await this.#input.write(encodeLine([command, value]));
    return await answerOf(this.#lines, "PyTorch");
  }

  /** Ends the child. */
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
