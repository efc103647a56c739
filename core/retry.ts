/**
 * When a request is made again.
 * @module
 */

/** A failure of a server, or of the way to it. */
export class RequestError extends Error {
  /** Whether the same request may succeed later. */
  readonly mayPass: boolean;
  /** Milliseconds that the server asked to wait; 0 where it did not. */
  readonly retryAfterMs: number;

  /** @param message What happened, without what was done. */
  constructor(
    message: string,
    options: ErrorOptions & { mayPass?: boolean; retryAfterMs?: number } = {},
  ) {
    super(message, options);
    this.name = "RequestError";
    this.mayPass = options.mayPass ?? false;
    this.retryAfterMs = options.retryAfterMs ?? 0;
  }
}

/** How often and after how long a request is made again. */
export interface RetryPolicy {
  /** Failures in a row, without news in between, after which the last one is told. */
  readonly nAttempts: number;
  /** Waits; rejects with the reason of the signal when it is aborted. */
  sleep(ms: number, signal: AbortSignal): Promise<void>;
  /** A number in [0, 1), so that many clients do not come back at once. */
  random(): number;
}

/** Waits in real time. */
export const REAL_TIME: Pick<RetryPolicy, "sleep" | "random"> = {
  random: Math.random,
  sleep: (ms, signal) =>
    new Promise((resolve, reject) => {
      signal.throwIfAborted();
      const stop = (): void => {
        clearTimeout(timer);
        reject(signal.reason);
      };
      const timer = setTimeout(() => {
        signal.removeEventListener("abort", stop);
        resolve();
      }, ms);
      signal.addEventListener("abort", stop, { once: true });
    }),
};

const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 20_000;
/** A server that asks for more is told of, and not waited for. */
const LONGEST_ASKED_MS = 300_000;
/** Fewer bytes than these between two failures are no news. */
const NEWS_BYTES = 64 * 1024;

/** Milliseconds before the n-th attempt after the first: doubled each time, from half of it to all of it by chance. */
export function waitMs(n: number, random: number): number {
  const whole = Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** (n - 1));
  return whole * (0.5 + 0.5 * random);
}

/** The milliseconds in a Retry-After header, which has seconds or a date; 0 where it has neither. */
export function parseRetryAfter(header: string | null, now: number): number {
  if (header === null) return 0;
  if (/^\d{1,9}$/.test(header.trim())) return 1000 * Number(header);
  const date = Date.parse(header);
  return Number.isNaN(date) ? 0 : Math.max(0, date - now);
}

/**
 * Runs an attempt until it succeeds, fails for good, or has failed too often.
 * @param nBytes How many bytes all attempts together have brought; news between failures counts them anew.
 * @throws {RequestError} The last failure.
 */
export async function withRetries<T>(
  policy: RetryPolicy,
  signal: AbortSignal,
  attempt: () => Promise<T>,
  nBytes: () => number = () => 0,
): Promise<T> {
  let failures = 0;
  let before = nBytes();
  while (true) {
    signal.throwIfAborted();
    try {
      return await attempt();
    } catch (error) {
      signal.throwIfAborted();
      if (!(error instanceof RequestError) || !error.mayPass) throw error;
      if (nBytes() - before >= NEWS_BYTES) failures = 0;
      before = nBytes();
      failures++;
      const { retryAfterMs } = error;
      if (failures >= policy.nAttempts || retryAfterMs > LONGEST_ASKED_MS) {
        throw error;
      }
      const wait = waitMs(failures, policy.random());
      await policy.sleep(Math.max(wait, retryAfterMs), signal);
    }
  }
}
