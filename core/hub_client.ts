/**
 * Requests to the Hugging Face hub: what a repository has, and bytes of its files. The token goes to
 * the hub alone, never along a redirect to another host.
 * @module
 */
import { type HubRepo, isCommit } from "./hub_cache.ts";
import { type HubFile, type HubListing, parseListing } from "./hub_files.ts";
import type { ByteRange } from "./hub_ranges.ts";
import { type Answer, ask, readAll, shorten } from "./hub_answer.ts";
import { parseRetryAfter, RequestError } from "./retry.ts";

/** Where the hub is, and who asks. */
export interface HubClientOptions {
  /** Address of the hub, such as `https://huggingface.co`. */
  readonly endpoint: string;
  /** Proves who asks, for gated and private repositories. */
  readonly token?: string | undefined;
  /** Milliseconds without a byte after which a request has failed. */
  readonly stallMs: number;
}

/** Bytes to read. */
export interface ReadOptions {
  readonly repo: HubRepo;
  readonly commit: string;
  readonly file: HubFile;
  readonly range: ByteRange;
  /**
   * Whether the server may be asked for the range alone; else it sends the whole file, of which
   * what is outside the range is dropped.
   */
  readonly mayAskForPart: boolean;
  readonly signal: AbortSignal;
}

/** A server that answers a request for a part with the whole file. */
export class RangesIgnored extends Error {}

interface HubAnswer extends Answer {
  /** Whether the hub itself answered, and not a server that it sent to. */
  readonly isOfHub: boolean;
}

const MAX_REDIRECTS = 5;
/** Listings are held whole; the longest known have a few MB. */
const MAX_LISTING_BYTES = 256 * 2 ** 20;

/**
 * The address of a hub, with a slash at its end.
 * @throws {TypeError} If it is no address of the web.
 */
export function parseEndpoint(text: string): URL {
  const url = URL.parse(text.replace(/\/*$/, "/"));
  if (url && /^https?:$/.test(url.protocol) && url.username === "") return url;
  throw new TypeError(
    `Cannot use HF_ENDPOINT: expected an address such as https://huggingface.co: got ${
      JSON.stringify(text)
    }`,
  );
}

/** The hub as one user sees it. */
export class HubClient {
  readonly #endpoint: URL;
  readonly #options: HubClientOptions;

  /** @throws {TypeError} If the endpoint is no address of the web. */
  constructor(options: HubClientOptions) {
    this.#options = options;
    this.#endpoint = parseEndpoint(options.endpoint);
  }

  /**
   * All files of a revision.
   * @throws {RequestError} If there is no such repository or revision, the user may not see it, or the hub fails.
   * @throws {SyntaxError} If the answer makes no sense.
   */
  async list(
    repo: HubRepo,
    revision: string,
    signal: AbortSignal,
  ): Promise<HubListing> {
    const url = this.#url(
      `api/${repo.type}s/${repo.id}/revision/${
        encodeURIComponent(revision)
      }?blobs=true`,
    );
    const answer = await this.#request(url, {}, signal);
    let bytes: Uint8Array;
    try {
      const isFound = answer.response.status === 200;
      if (!isFound) throw this.#failure(answer, repo, revision);
      bytes = await readAll(answer, MAX_LISTING_BYTES);
    } finally {
      await answer.close();
    }
    const listing = parseListing(parseJson(bytes), url.href);
    if (isCommit(revision) && listing.commit !== revision) {
      throw new RequestError(
        `expected commit ${revision} from the hub: got ${listing.commit}`,
      );
    }
    return listing;
  }

  /**
   * Bytes of a range of a file, in order; ends early where the connection does.
   * @throws {RangesIgnored} If a part was asked for, and the server sends the whole file.
   * @throws {RequestError} If the server fails, or sends other bytes than were asked for.
   */
  async *read(options: ReadOptions): AsyncGenerator<Uint8Array> {
    const { repo, commit, file, range: { start, end }, signal } = options;
    const isPart = options.mayAskForPart && (start > 0 || end < file.size);
    const answer = await this.#request(
      this.#fileUrl(repo, commit, file),
      isPart ? { range: `bytes=${start}-${end - 1}` } : {},
      signal,
    );
    try {
      let at = this.#firstByte(answer, options, isPart);
      const last = isPart ? end : file.size;
      for await (const chunk of answer.chunks()) {
        const from = Math.max(0, start - at);
        const to = Math.min(chunk.length, end - at);
        at += chunk.length;
        if (at > last) {
          throw new RequestError(
            `expected bytes [${start}, ${end}) of ${file.size} from the server: got more`,
          );
        }
        if (from < to) yield chunk.subarray(from, to);
      }
    } finally {
      await answer.close();
    }
  }

  /** Checks the head of an answer, and tells which byte of the file comes first. */
  #firstByte(
    answer: HubAnswer,
    { repo, commit, file, range: { start, end } }: ReadOptions,
    isPart: boolean,
  ): number {
    const { status, headers } = answer.response;
    if (status === 200 && isPart) throw new RangesIgnored();
    if (status !== 200 && status !== 206) {
      throw this.#failure(answer, repo, commit, file.path);
    }
    if (status === 206) {
      const got = headers.get("content-range") ?? "nothing";
      const want = `bytes ${start}-${end - 1}/`;
      if (isPart && (got === want + file.size || got === `${want}*`)) {
        return start;
      }
      throw new RequestError(
        `expected content-range "${want}${file.size}" from the server: got "${
          shorten(got)
        }"`,
      );
    }
    const length = headers.get("content-length");
    const isPlain = !headers.has("content-encoding");
    if (length !== null && isPlain && Number(length) !== file.size) {
      throw new RequestError(
        `expected ${file.size} bytes from the server, as the hub says: got ${
          shorten(length)
        }`,
      );
    }
    return 0;
  }

  #url(path: string): URL {
    return new URL(path, this.#endpoint);
  }

  #fileUrl({ type, id }: HubRepo, commit: string, { path }: HubFile): URL {
    const folder = type === "dataset" ? "datasets/" : "";
    const encoded = path.split("/").map(encodeURIComponent).join("/");
    return this.#url(`${folder}${id}/resolve/${commit}/${encoded}`);
  }

  /** Asks, and follows redirects by hand: the token stays with the hub. */
  async #request(
    first: URL,
    headers: Readonly<Record<string, string>>,
    signal: AbortSignal,
  ): Promise<HubAnswer> {
    const { token, stallMs } = this.#options;
    let url = first;
    for (let n = 0; n <= MAX_REDIRECTS; n++) {
      const isOfHub = url.origin === this.#endpoint.origin;
      const answer = await ask(url, {
        headers: {
          "accept-encoding": "identity",
          "user-agent": "open-concept-steering",
          ...headers,
          ...(token && isOfHub && { authorization: `Bearer ${token}` }),
        },
        stallMs,
        signal,
      });
      const location = answer.response.headers.get("location");
      if (![301, 302, 303, 307, 308].includes(answer.response.status)) {
        return { ...answer, isOfHub };
      }
      await answer.close();
      const next = URL.parse(location ?? "", url);
      const isWeb = next?.protocol === "https:" ||
        (next?.protocol === "http:" && url.protocol === "http:");
      if (location === null || !next || !isWeb) {
        throw new RequestError("the server redirects to where no file can be");
      }
      url = next;
    }
    throw new RequestError(
      `the server redirects more than ${MAX_REDIRECTS} times`,
    );
  }

  /** What an answer that is no success means. */
  #failure(
    { response: { status, headers }, isOfHub }: HubAnswer,
    { id, type }: HubRepo,
    revision: string,
    file?: string,
  ): RequestError {
    const code = headers.get("x-error-code");
    const page =
      this.#url(`${type === "dataset" ? "datasets/" : ""}${id}`).href;
    const { token } = this.#options;
    if (isOfHub && (status === 401 || status === 403)) {
      const give = token === undefined
        ? "give a token in HF_TOKEN"
        : "the token in use may not read it";
      return new RequestError(
        code === "GatedRepo" || status === 403
          ? `status ${status}: access is gated: accept its license on ${page}, and ${give}`
          : `status ${status}: no such repository, or it is private or gated: check the name, and ${give}: see ${page}`,
      );
    }
    if (isOfHub && status === 404) {
      return new RequestError(
        code === "RevisionNotFound"
          ? `status 404: no revision "${revision}": see ${page}/branches`
          : file === undefined && code !== "EntryNotFound"
          ? `status 404: no such repository: check the name, and --type for a dataset`
          : `status 404: no such file in revision "${revision}"`,
      );
    }
    // Other hosts answer with 403 when an address of theirs is too old.
    const mayPass = status === 408 || status === 429 || status >= 500 ||
      (!isOfHub && status !== 416);
    const retryAfterMs = parseRetryAfter(
      headers.get("retry-after"),
      Date.now(),
    );
    const wait = retryAfterMs > 0
      ? `: asks to wait ${Math.ceil(retryAfterMs / 1000)} s`
      : "";
    const reason = status === 429 ? "too many requests" : "the server failed";
    return new RequestError(`status ${status}: ${reason}${wait}`, {
      mayPass,
      retryAfterMs,
    });
  }
}

function parseJson(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder().decode(bytes));
  } catch (cause) {
    const message = "expected JSON from the hub: got another text";
    throw new RequestError(message, { cause });
  }
}
