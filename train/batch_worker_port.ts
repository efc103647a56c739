/**
 * This side of the worker that makes batches: requests out, answers in, in order
 * and by kind.
 * @module
 */
import type { BatchPosition } from "./batch_source.ts";
import type { FromBatchWorker, ToBatchWorker } from "./batch_worker.ts";

type Answer = Exclude<FromBatchWorker, { kind: "failed" }>;
type AnswerOf<Kind> = Extract<Answer, { kind: Kind }>;

/** What the worker tells of the data. */
export type Opened = AnswerOf<"opened">;

/** Someone who waits for an answer of a kind. */
interface Waiting {
  readonly kind: Answer["kind"];
  resolve(answer: Answer): void;
  reject(error: unknown): void;
}

/** Errors that keep their class on the way from the worker. */
const ERRORS = { RangeError, SyntaxError, TypeError } as const;

/** A worker; owns it. */
export class BatchWorkerPort implements Disposable {
  readonly #worker: Worker;
  /** Answers that nobody waits for yet, oldest first. */
  #answers: FromBatchWorker[] = [];
  readonly #waiting: Waiting[] = [];
  #run = 0;
  /** Why nothing can come any more. */
  #end: Error | undefined;

  /** Starts it. */
  constructor() {
    const module = new URL("./batch_worker.ts", import.meta.url);
    this.#worker = new Worker(module, { type: "module", name: "batches" });
    this.#worker.onmessage = ({ data }: MessageEvent<FromBatchWorker>) =>
      this.#take(data);
    this.#worker.onerror = (event) => {
      // It would end the process, too.
      event.preventDefault();
      this.#close(
        new Error(
          `Cannot make batches: the worker ended: ${
            event.message.replace(/\s*\n\s*/g, " ")
          }`,
        ),
      );
    };
  }

  /** Sends a request. */
  send(request: ToBatchWorker): void {
    this.#worker.postMessage(request);
  }

  /** Goes to a position, with as many batches wanted from there; those of before never arrive. */
  async restart(position: BatchPosition, nWanted: number): Promise<void> {
    this.#run++;
    this.#answers = this.#answers.filter((answer) => !this.#isStale(answer));
    this.send({ kind: "restore", position, run: this.#run, nWanted });
    await this.receive("restored");
  }

  /**
   * Waits for the next answer of a kind.
   * @throws {Error} What failed in the worker instead, with its class and message.
   */
  async receive<Kind extends Answer["kind"]>(
    kind: Kind,
  ): Promise<AnswerOf<Kind>> {
    const at = this.#answers.findIndex((answer) => kindOf(answer) === kind);
    if (at >= 0) {
      const answer = this.#answers.splice(at, 1)[0]!;
      if (answer.kind === "failed") throw errorOf(answer);
      return answer as AnswerOf<Kind>;
    }
    if (this.#end) throw this.#end;
    const { promise, resolve, reject } = Promise.withResolvers<Answer>();
    this.#waiting.push({ kind, resolve, reject });
    return await promise as AnswerOf<Kind>;
  }

  /** Ends the worker; what is still waited for is refused. */
  [Symbol.dispose](): void {
    this.#close(
      new Error("Cannot make batches: the worker was disposed of: open again"),
    );
  }

  #take(answer: FromBatchWorker): void {
    if (this.#end || this.#isStale(answer)) return;
    const kind = kindOf(answer);
    const at = this.#waiting.findIndex((waiting) => waiting.kind === kind);
    if (at < 0) {
      this.#answers.push(answer);
      return;
    }
    const { resolve, reject } = this.#waiting.splice(at, 1)[0]!;
    if (answer.kind === "failed") reject(errorOf(answer));
    else resolve(answer);
  }

  /** Whether it is a batch, or the failure of one, from before the last restart. */
  #isStale(answer: FromBatchWorker): boolean {
    return kindOf(answer) === "batch" && "run" in answer &&
      answer.run !== this.#run;
  }

  #close(reason: Error): void {
    this.#end ??= reason;
    this.#worker.terminate();
    this.#answers = [];
    for (const { reject } of this.#waiting.splice(0)) reject(this.#end);
  }
}

/** The kind of an answer; of a failure, what was to come instead. */
function kindOf(answer: FromBatchWorker): Answer["kind"] {
  return answer.kind === "failed" ? answer.what : answer.kind;
}

function errorOf(
  { name, message, stack }: FromBatchWorker & { kind: "failed" },
): Error {
  const isKnown = (name: string): name is keyof typeof ERRORS => name in ERRORS;
  const error = isKnown(name) ? new ERRORS[name](message) : new Error(message);
  error.name = name;
  if (stack !== undefined) error.stack = stack;
  return error;
}
