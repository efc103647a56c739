/**
 * A Hugging Face hub on this machine: one server as the hub, which answers for repositories, and
 * another as the store of large files that it redirects to. Both can be told to misbehave.
 * @module
 */
import { createHash } from "node:crypto";

/** A repository as it is served. */
export interface ServedRepo {
  readonly commit: string;
  readonly files: Readonly<Record<string, Uint8Array<ArrayBuffer>>>;
  /** Whether a token is needed. */
  readonly isGated?: boolean;
  /** What the listing says in place of the truth. */
  readonly listing?: (siblings: Sibling[]) => unknown;
}

/** A file in a listing. */
export interface Sibling {
  rfilename: string;
  size: number;
  blobId: string;
  lfs?: { sha256: string; size: number; pointerSize: number };
}

/** A request as it came. */
export interface Asked {
  readonly server: "hub" | "store";
  /** What it is for: a file's name, or "" for a listing. */
  readonly file: string;
  /** The bytes asked for; all of them without a Range header. */
  readonly start: number;
  readonly end: number;
  readonly isRange: boolean;
  readonly token: string | null;
}

/** Answers in place of the server; undefined lets it do its work. */
export type Misbehave = (
  asked: Asked,
  bytes: Uint8Array<ArrayBuffer>,
) => Response | Promise<Response> | undefined;

/** Files of more bytes are large, and lie in the store. */
export const LARGE = 10_000;
/** The token that opens gated repositories. */
export const TOKEN = "hf_aTokenOfATest";

export const sha256 = (bytes: Uint8Array): string =>
  createHash("sha256").update(bytes).digest("hex");
export const gitSha1 = (bytes: Uint8Array): string =>
  createHash("sha1").update(`blob ${bytes.length}\0`).update(bytes).digest(
    "hex",
  );
/** The name of a file's blob. */
export const hashOf = (bytes: Uint8Array): string =>
  bytes.length > LARGE ? sha256(bytes) : gitSha1(bytes);

/** The two servers. */
export class FakeHub implements AsyncDisposable {
  /** By `models/owner/name` or `datasets/owner/name`. */
  readonly repos: Record<string, ServedRepo> = {};
  /** Branches and tags of all repositories. */
  readonly revisions: Record<string, string> = {};
  readonly asked: Asked[] = [];
  /** For files. */
  misbehave: Misbehave = () => undefined;
  /** For listings. */
  misbehaveListing: () => Response | undefined = () => undefined;
  readonly #stop = new AbortController();
  readonly #hub: Deno.HttpServer<Deno.NetAddr>;
  readonly #store: Deno.HttpServer<Deno.NetAddr>;

  constructor() {
    const options = {
      ...{ hostname: "127.0.0.1", port: 0, onListen: () => {} },
      signal: this.#stop.signal, // ends answers that would never end
    };
    this.#hub = Deno.serve(options, (request) => this.#answerHub(request));
    this.#store = Deno.serve(options, (request) => this.#answerStore(request));
  }

  get endpoint(): string {
    return `http://127.0.0.1:${this.#hub.addr.port}`;
  }

  /** Bytes of files that were asked for, by requests that passed a test. */
  countAsked(test: (asked: Asked) => boolean = () => true): number {
    return this.asked.filter((asked) => asked.file !== "" && test(asked))
      .reduce((sum, { start, end }) => sum + end - start, 0);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await Promise.all([this.#hub.finished, this.#store.finished]);
  }

  async #answerHub(request: Request): Promise<Response> {
    const { pathname } = new URL(request.url);
    const [api, type, owner, name, , ...rest] = pathname.slice(1).split("/");
    if (api === "api") {
      const repo = this.repos[`${type}/${owner}/${name}`];
      const revision = decodeURIComponent(rest[0]!);
      return this.#list(request, `${owner}/${name}`, repo, revision);
    }
    const isDataset = pathname.startsWith("/datasets/");
    const parts = pathname.slice(1).split("/").slice(isDataset ? 1 : 0);
    const [of, called, , commit, ...path] = parts;
    const file = path.map(decodeURIComponent).join("/");
    const repo =
      this.repos[`${isDataset ? "datasets" : "models"}/${of}/${called}`];
    const bytes = repo?.files[file];
    if (!repo || repo.commit !== commit || !bytes) {
      const headers = { "x-error-code": "EntryNotFound" };
      return new Response("no such file", { status: 404, headers });
    }
    const refusal = refuse(request, repo);
    if (refusal) return refusal;
    const isLarge = bytes.length > LARGE;
    if (!isLarge) return await this.#serve(request, "hub", file, bytes);
    const port = this.#store.addr.port;
    const location = `http://127.0.0.1:${port}/${
      encodeURIComponent(file)
    }?${new URLSearchParams({ repo: `${of}/${called}` })}`;
    return new Response(null, {
      status: 302,
      headers: { location, "x-linked-etag": `"${sha256(bytes)}"` },
    });
  }

  #list(
    request: Request,
    id: string,
    repo: ServedRepo | undefined,
    revision: string,
  ): Response {
    const asked: Asked = {
      ...{ server: "hub", file: "", start: 0, end: 0, isRange: false },
      token: request.headers.get("authorization"),
    };
    this.asked.push(asked);
    const other = this.misbehaveListing();
    if (other) return other;
    if (!repo) {
      const headers = { "x-error-code": "RepoNotFound" };
      return new Response("no such repository", { status: 404, headers });
    }
    const refusal = refuse(request, repo);
    if (refusal) return refusal;
    if (![repo.commit, "main"].includes(this.revisions[revision] ?? revision)) {
      const headers = { "x-error-code": "RevisionNotFound" };
      return new Response("no such revision", { status: 404, headers });
    }
    const siblings = Object.entries(repo.files).map(([rfilename, bytes]) => {
      const size = bytes.length;
      const lfs = { sha256: sha256(bytes), size, pointerSize: 134 };
      const plain: Sibling = { rfilename, size, blobId: gitSha1(bytes) };
      return size > LARGE ? { ...plain, lfs } : plain;
    });
    const answer = { id, sha: repo.commit, siblings, private: false };
    return Response.json({
      ...answer,
      ...(repo.listing && { siblings: repo.listing(siblings) }),
    });
  }

  async #answerStore(request: Request): Promise<Response> {
    const { pathname, searchParams } = new URL(request.url);
    const file = decodeURIComponent(pathname.slice(1));
    const id = searchParams.get("repo");
    const repo = this.repos[`models/${id}`] ?? this.repos[`datasets/${id}`];
    return await this.#serve(request, "store", file, repo!.files[file]!);
  }

  async #serve(
    request: Request,
    server: "hub" | "store",
    file: string,
    bytes: Uint8Array<ArrayBuffer>,
  ): Promise<Response> {
    const range = /^bytes=(\d+)-(\d+)$/.exec(
      request.headers.get("range") ?? "",
    );
    const [start, end] = range
      ? [Number(range[1]), Number(range[2]) + 1]
      : [0, bytes.length];
    const isRange = range !== null;
    const token = request.headers.get("authorization");
    const asked: Asked = { server, file, start, end, isRange, token };
    this.asked.push(asked);
    return await this.misbehave(asked, bytes) ?? answerFile(asked, bytes);
  }
}

function refuse(request: Request, repo: ServedRepo): Response | undefined {
  const token = request.headers.get("authorization");
  if (!repo.isGated || token === `Bearer ${TOKEN}`) return undefined;
  const headers = { "x-error-code": "GatedRepo" };
  return new Response("gated", { status: token ? 403 : 401, headers });
}

/** The right answer to a request for a file; another body where one is given. */
export function answerFile(
  { start, end, isRange }: Pick<Asked, "start" | "end" | "isRange">,
  bytes: Uint8Array<ArrayBuffer>,
  body: BodyInit = bytes.slice(start, end),
): Response {
  const headers: Record<string, string> = {
    "content-length": `${end - start}`,
  };
  if (!isRange) return new Response(body, { headers });
  headers["content-range"] = `bytes ${start}-${end - 1}/${bytes.length}`;
  return new Response(body, { status: 206, headers });
}

/** A right answer that is cut off after some bytes, or stalls there. */
export function brokenAnswer(
  asked: Asked,
  bytes: Uint8Array<ArrayBuffer>,
  after: number,
  end: "cut" | "stall",
): Response {
  const { start } = asked;
  let isSent = false;
  const body = new ReadableStream<Uint8Array<ArrayBuffer>>({
    async pull(controller): Promise<void> {
      if (!isSent && after > 0) {
        controller.enqueue(bytes.slice(start, start + after));
      } else if (end === "cut") controller.close(); // fewer bytes than promised
      else await new Promise(() => {});
      isSent = true;
    },
  });
  return answerFile(asked, bytes, body);
}

/** A right answer that takes a while. */
export function slowAnswer(
  asked: Asked,
  bytes: Uint8Array<ArrayBuffer>,
  chunkBytes: number,
  msPerChunk: number,
): Response {
  let at = asked.start;
  const body = new ReadableStream<Uint8Array<ArrayBuffer>>({
    async pull(controller): Promise<void> {
      const end = Math.min(asked.end, at + chunkBytes);
      await new Promise((resolve) => setTimeout(resolve, msPerChunk));
      controller.enqueue(bytes.slice(at, end));
      at = end;
      if (at === asked.end) controller.close();
    },
  });
  return answerFile(asked, bytes, body);
}

/** Bytes that nobody can guess, with lengths that are a multiple of nothing. */
export function noise(length: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(length);
  for (let at = 0; at < length; at += 65536) {
    crypto.getRandomValues(bytes.subarray(at, Math.min(length, at + 65536)));
  }
  return bytes;
}
