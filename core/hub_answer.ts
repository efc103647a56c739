/**
 * One request of the web and its answer, with a limit to how long nothing may come.
 * @module
 */
import { RequestError } from "./retry.ts";

/** An answer whose body is read a chunk at a time. */
export interface Answer {
  readonly response: Response;
  /**
   * The body.
   * @throws {RequestError} If the connection breaks, or no byte comes for too long.
   */
  chunks(): AsyncGenerator<Uint8Array>;
  /** Lets go of what has not been read. */
  close(): Promise<void>;
}

/** How to ask. */
export interface AskOptions {
  readonly headers: Record<string, string>;
  /** Milliseconds without a byte after which the request has failed. */
  readonly stallMs: number;
  readonly signal: AbortSignal;
}

/**
 * Asks once; redirects are answers like others.
 * @throws {RequestError} If there is no answer.
 */
export async function ask(
  url: URL,
  { headers, stallMs, signal }: AskOptions,
): Promise<Answer> {
  const watch = new Watch(stallMs);
  const either = AbortSignal.any([signal, watch.signal]);
  const response = await watch.within(() =>
    fetch(url, { headers, redirect: "manual", signal: either })
  );
  const reader = response.body?.getReader();
  return {
    response,
    async *chunks(): AsyncGenerator<Uint8Array> {
      while (reader) {
        const { done, value } = await watch.within(() => reader.read());
        if (done) return;
        yield value;
      }
    },
    close: async () => await reader?.cancel().catch(() => {}),
  };
}

/**
 * The whole body of an answer.
 * @throws {RequestError} If it is longer than allowed, or breaks off.
 */
export async function readAll(
  answer: Answer,
  maxBytes: number,
): Promise<Uint8Array> {
  const parts: Uint8Array<ArrayBuffer>[] = [];
  let length = 0;
  for await (const chunk of answer.chunks()) {
    parts.push(new Uint8Array(chunk));
    length += chunk.length;
    if (length > maxBytes) {
      throw new RequestError(`expected at most ${maxBytes} bytes: got more`);
    }
  }
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}

/** One short line of what a server said. */
export function shorten(text: string): string {
  const line = text.replace(/[\p{C}\s]+/gu, " ").trim();
  return line.length > 200 ? `${line.slice(0, 200)}…` : line;
}

/** Fails what takes too long. */
class Watch {
  readonly #ms: number;
  readonly #controller = new AbortController();

  constructor(ms: number) {
    this.#ms = ms;
  }

  /** Aborted when something took too long. */
  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** Waits for what a server is to do. */
  async within<T>(action: () => Promise<T>): Promise<T> {
    const timer = setTimeout(() => {
      const message = `no byte came for ${this.#ms / 1000} s`;
      this.#controller.abort(new RequestError(message, { mayPass: true }));
    }, this.#ms);
    try {
      return await action();
    } catch (cause) {
      throw this.signal.aborted ? this.signal.reason : connectionError(cause);
    } finally {
      clearTimeout(timer);
    }
  }
}

/** A connection fails with a TypeError, by the standard; what else there is was no connection's fault. */
function connectionError(cause: unknown): unknown {
  if (!(cause instanceof TypeError)) return cause;
  return new RequestError(shorten(cause.message), { cause, mayPass: true });
}
