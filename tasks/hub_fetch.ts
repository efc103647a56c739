/**
 * Requests that write to the hub: made again where that may help, told in one line where not. The token goes to the hub
 * alone, and no message has an address, as those of large files carry signatures.
 * @module
 */
import { shorten } from "../core/hub_answer.ts";
import {
  parseRetryAfter,
  RequestError,
  type RetryPolicy,
  withRetries,
} from "../core/retry.ts";
import { FileBlob } from "./file_blob.ts";

/** How requests are made. */
export interface HubFetchOptions {
  /** Address of the hub, with a slash at its end. */
  readonly endpoint: URL;
  readonly token: string;
  readonly retries: RetryPolicy;
  readonly signal: AbortSignal;
  /** Told of bytes of files that were sent, and, below 0, of those that must be sent again. */
  readonly onSent: (nBytes: number) => void;
  /** Statuses that are answers like others. */
  readonly taken?: readonly number[];
}

const MAX_MESSAGE_BYTES = 64 * 1024;

/**
 * `fetch` for the hub; what it returns is a success, or has a status that is taken.
 * @throws {RequestError} When a request has failed for good.
 */
export function hubFetch(options: HubFetchOptions): typeof fetch {
  const { retries, signal } = options;
  return (input, init = {}) => {
    const url = new URL(input instanceof Request ? input.url : input);
    return withRetries(retries, signal, () => attempt(options, url, init));
  };
}

async function attempt(
  options: HubFetchOptions,
  url: URL,
  init: RequestInit,
): Promise<Response> {
  const { endpoint, token, signal, onSent, taken = [] } = options;
  const isOfHub = url.origin === endpoint.origin;
  const headers = new Headers(init.headers);
  headers.set("user-agent", "open-concept-steering");
  if (isOfHub) headers.set("authorization", `Bearer ${token}`);
  let nSent = 0;
  const body = init.body instanceof FileBlob
    ? init.body.counted((n) => {
      nSent += n;
      onSent(n);
    })
    : init.body;
  try {
    const response = await fetch(url, {
      ...init,
      ...(body !== undefined && { body }),
      headers,
      signal: AbortSignal.any([signal, ...init.signal ? [init.signal] : []]),
    });
    if (response.ok || taken.includes(response.status)) return response;
    throw await failure(response, isOfHub, url);
  } catch (error) {
    signal.throwIfAborted();
    onSent(-nSent);
    if (!(error instanceof TypeError)) throw error;
    // Nobody knows whether a commit whose answer did not come was made; making it again does no harm.
    const message = `the connection failed: ${withoutAddress(error.message)}`;
    throw new RequestError(message, { cause: error, mayPass: true });
  }
}

/** What an answer that is no success means. */
async function failure(
  response: Response,
  isOfHub: boolean,
  url: URL,
): Promise<RequestError> {
  const { status, headers } = response;
  const said = await messageOf(response);
  const retryAfterMs = parseRetryAfter(headers.get("retry-after"), Date.now());
  const mayPass = status === 408 || status === 429 || status >= 500;
  const why: Record<number, string> = isOfHub
    ? {
      401: "the token in HF_TOKEN is not valid: make one with write access",
      403: "the token in HF_TOKEN may not write there: make one that may",
      404: `nothing at ${url.pathname}`,
      412: "the repository has changed meanwhile: run the same command again",
    }
    : {};
  const reason = why[status] ??
    (status === 429
      ? "too many requests"
      : status >= 500
      ? "the server failed"
      : isOfHub
      ? "the hub refused it"
      : "the store of large files refused it: run the same command again");
  const told = said === "" ? "" : ` (${said})`;
  return new RequestError(`status ${status}: ${reason}${told}`, {
    mayPass,
    retryAfterMs,
  });
}

/** What the hub says of a failure, in one short line. */
async function messageOf(response: Response): Promise<string> {
  const isJson = headersJson(response.headers);
  const length = Number(response.headers.get("content-length") ?? 0);
  if (!isJson || length > MAX_MESSAGE_BYTES) {
    await response.body?.cancel();
    return "";
  }
  try {
    const json: unknown = await response.json();
    const isObject = typeof json === "object" && json !== null;
    const said = isObject && "error" in json ? json.error : "";
    return typeof said === "string" ? withoutAddress(said) : "";
  } catch {
    return ""; // the status says enough
  }
}

function headersJson(headers: Headers): boolean {
  return headers.get("content-type")?.startsWith("application/json") ?? false;
}

/** One line without addresses, which carry signatures. */
function withoutAddress(text: string): string {
  return shorten(text.replace(/\(?\bhttps?:\/\/[^\s)]*\)?/g, "").trim());
}
