/**
 * Requests to an object store that speaks S3: signed, with an end when nothing comes, and made
 * again where that may help. Web APIs only.
 * @module
 */
import { S3mini } from "s3mini";
import {
  parseRetryAfter,
  REAL_TIME,
  RequestError,
  type RetryPolicy,
  withRetries,
} from "./retry.ts";
import { readS3Error } from "./s3_answer.ts";

/** Where a folder of an object store is, and the right to it; it can be sent to a worker. */
export interface S3Address {
  readonly bucket: string;
  /** The folder's path in the bucket, without slashes at its ends; "" for the bucket. */
  readonly prefix: string;
  /** URL of the server, without the bucket. */
  readonly endpoint: string;
  readonly region: string;
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  /** Of credentials that end. */
  readonly sessionToken?: string;
}

/** When a request is given up, and made again. */
export interface S3Timing extends RetryPolicy {
  /** Milliseconds without a byte after which an attempt has failed. */
  readonly idleMs: number;
  /** Calls back after a while. @returns What stops it. */
  after(ms: number, callback: () => void): () => void;
}

/** In real time. */
export const S3_TIMING: S3Timing = {
  ...REAL_TIME,
  nAttempts: 7,
  idleMs: 60_000,
  after(ms, callback): () => void {
    const timer = setTimeout(callback, ms);
    return () => clearTimeout(timer);
  },
};

/** Uploads get longer, as if they had at least this many bytes a second. */
const SLOWEST_UPLOAD = 64 * 1024;

/** What is asked of the server. */
export interface S3Request {
  /** What is done, as errors have it: "read". */
  readonly verb: string;
  readonly method: "GET" | "HEAD" | "PUT" | "POST" | "DELETE";
  /** The object; "" for the bucket. */
  readonly key: string;
  readonly query?: Readonly<Record<string, string>>;
  /** Asked for anew at every attempt. */
  readonly headers?: () => Record<string, string>;
  readonly body?: Uint8Array<ArrayBuffer> | string;
  /** Statuses besides 2xx that are an answer, not a failure. */
  readonly answers?: readonly number[];
}

/** Takes an answer, all of its body; says of every piece how many bytes came. */
export type TakeAnswer<T> = (
  response: Response,
  progress: (nBytes: number) => void,
) => Promise<T>;

/** A server, one bucket of it. */
export class S3Client {
  readonly #address: S3Address;
  readonly #timing: S3Timing;
  readonly #signer: S3mini;

  constructor(address: S3Address, timing: S3Timing = S3_TIMING) {
    const { accessKeyId, secretAccessKey, endpoint, region } = address;
    this.#address = address;
    this.#timing = timing;
    this.#signer = new S3mini({
      accessKeyId,
      secretAccessKey,
      endpoint,
      region,
    });
  }

  /** When its requests are made again. */
  get timing(): S3Timing {
    return this.#timing;
  }

  /** What errors call an object. */
  nameOf(key: string): string {
    return `s3://${this.#address.bucket}${key === "" ? "" : `/${key}`}`;
  }

  /**
   * Makes a request, and again where it may pass: no connection, no answer, a body that was cut off,
   * a server that fails or is too busy.
   * @throws {Error} What was done, with what, and why it failed, in one line; or what `take` throws.
   */
  async send<T>(request: S3Request, take: TakeAnswer<T>): Promise<T> {
    let nBytes = 0;
    const attempt = (): Promise<T> =>
      this.#attempt(request, take, (n) => {
        nBytes += n;
      });
    const never = new AbortController().signal;
    try {
      return await withRetries(this.#timing, never, attempt, () => nBytes);
    } catch (cause) {
      if (!(cause instanceof RequestError)) throw cause;
      const { verb, key } = request;
      throw new Error(
        `Cannot ${verb} "${this.nameOf(key)}": ${cause.message}`,
        { cause },
      );
    }
  }

  async #attempt<T>(
    request: S3Request,
    take: TakeAnswer<T>,
    count: (nBytes: number) => void,
  ): Promise<T> {
    const { method, headers, body, answers = [] } = request;
    const watch = new Watch(
      this.#timing,
      1000 * (body?.length ?? 0) / SLOWEST_UPLOAD,
    );
    try {
      const url = await this.#sign(request);
      const response = await fetch(url, {
        method,
        // What is stored is wanted, as it is.
        headers: { "accept-encoding": "identity", ...headers?.() },
        ...(body !== undefined && { body }),
        redirect: "manual",
        signal: watch.signal,
      });
      watch.restart();
      if (!response.ok && !answers.includes(response.status)) {
        throw await refusal(response, this.#address);
      }
      return await take(response, (n) => {
        watch.restart();
        count(n);
      });
    } catch (error) {
      throw watch.signal.aborted ? watch.signal.reason : networkError(error);
    } finally {
      watch.end();
    }
  }

  /** The URL of a request, which holds the signature and is told to nobody. */
  async #sign({ method, key, query }: S3Request): Promise<string> {
    const { bucket, sessionToken } = this.#address;
    return await this.#signer.getPresignedUrl(
      // It signs any.
      method as "GET",
      key === "" ? bucket : `${bucket}/${key}`,
      3600,
      {
        ...query,
        ...(sessionToken !== undefined &&
          { "X-Amz-Security-Token": sessionToken }),
      },
    );
  }
}

/** Ends an attempt when no byte has come for a while. */
class Watch {
  readonly #timing: S3Timing;
  readonly #controller = new AbortController();
  #stop: () => void;

  constructor(timing: S3Timing, firstMs: number) {
    this.#timing = timing;
    this.#stop = this.#start(firstMs);
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  restart(): void {
    this.#stop();
    this.#stop = this.#start(0);
  }

  /** Ends it, and the connection if a body was left unread. */
  end(): void {
    this.#stop();
    this.#controller.abort();
  }

  #start(moreMs: number): () => void {
    const ms = this.#timing.idleMs + moreMs;
    return this.#timing.after(ms, () =>
      this.#controller.abort(
        new RequestError(
          `nothing came for ${Math.round(ms / 1000)} s: try again later`,
          { mayPass: true },
        ),
      ));
  }
}

/** The failure that a server tells of. */
async function refusal(
  response: Response,
  { bucket, endpoint }: S3Address,
): Promise<RequestError> {
  const { status, headers } = response;
  const { code, message } = await readS3Error(response);
  const region = headers.get("x-amz-bucket-region");
  const isRedirect = status >= 300 && status < 400;
  if (region !== null && (isRedirect || status === 400)) {
    return new RequestError(
      `the bucket is in another region: set AWS_REGION to ${
        JSON.stringify(region)
      }`,
    );
  }
  if (code === "NoSuchBucket") {
    return new RequestError(
      `there is no bucket "${bucket}" at ${endpoint}: check its name and AWS_ENDPOINT_URL`,
    );
  }
  const what = `the server answered ${status}${message}`;
  if (status === 401 || status === 403) {
    return new RequestError(
      `${what}: check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION, and what they allow`,
    );
  }
  const mayPass = status === 429 || status === 408 ||
    (status >= 500 && status !== 501) || code === "RequestTimeout";
  return new RequestError(`${what}${mayPass ? ": try again later" : ""}`, {
    mayPass,
    retryAfterMs: parseRetryAfter(headers.get("retry-after"), Date.now()),
  });
}

/** The failure of a connection, which may pass; other errors as they are. */
function networkError(error: unknown): unknown {
  if (!(error instanceof Error) || error instanceof RequestError) return error;
  if (error.name === "NotCapable") {
    return new RequestError("not permitted: run with --allow-net", {
      cause: error,
    });
  }
  if (!(error instanceof TypeError)) return error;
  // Deno quotes the URL, which holds the signature.
  const reason = error.message.replace(/ for url \([^)]*\)/, "")
    .replaceAll(/https?:\/\/\S+/g, "the server").replace(/\s+/g, " ");
  return new RequestError(`${reason}: check AWS_ENDPOINT_URL and the network`, {
    mayPass: true,
    cause: error,
  });
}
