/**
 * A Hugging Face hub on this machine that takes uploads: one server as the hub, and another as the store of large files.
 * Both can be told to misbehave.
 * @module
 */
import { sha256 } from "../core/hub_server.ts";

type Bytes = Uint8Array<ArrayBuffer>;

/** A repository as it has become. */
export interface UploadedRepo {
  isPrivate: boolean;
  /** Files of each branch. */
  readonly branches: Record<string, { sha: string; files: Map<string, Bytes> }>;
}

/** A request as it came. */
export interface Told {
  readonly server: "hub" | "store";
  /** Method and path: `POST /api/repos/create`. */
  readonly what: string;
  readonly token: string | null;
}

/** Files of more bytes are large. */
const LARGE = 2000;
/** The token that may write. */
export const TOKEN = "hf_writeTokenOfATest";

/** Both servers. */
export class UploadHub implements AsyncDisposable {
  /** By `owner/name`. */
  readonly repos: Record<string, UploadedRepo> = {};
  /** What the store has, by SHA-256. */
  readonly objects = new Map<string, Bytes>();
  readonly told: Told[] = [];
  readonly commits: { title: string; parent: string; paths: string[] }[] = [];
  /** Files of more bytes are sent in parts of this many. */
  partBytes = Infinity;
  /** Answers in place of the servers; undefined lets them do their work. */
  misbehave: (told: Told) => Response | undefined = () => undefined;
  /** Bytes to the store after which the connection is cut, once. */
  cutAfter = Infinity;
  readonly #ends: AbortController[] = [];
  readonly #parts = new Map<string, Bytes>();
  readonly #hub: Deno.HttpServer<Deno.NetAddr>;
  readonly #store: Deno.HttpServer<Deno.NetAddr>;
  readonly #proxy: Deno.TcpListener;
  readonly #piping: Promise<void>;

  constructor() {
    const options = { hostname: "127.0.0.1", port: 0, onListen: () => {} };
    this.#hub = Deno.serve(options, (request) => this.#answer("hub", request));
    this.#store = Deno.serve(
      options,
      (request) => this.#answer("store", request),
    );
    this.#proxy = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    this.#piping = this.#pipe();
  }

  get endpoint(): string {
    return `http://127.0.0.1:${this.#hub.addr.port}`;
  }

  /** Requests whose method and path fit. */
  count(what: RegExp): number {
    return this.told.filter((told) => what.test(told.what)).length;
  }

  /** Adds a repository with a first commit. */
  addRepo(id: string, isPrivate: boolean, files: Record<string, string> = {}) {
    const entries = Object.entries(files).map(([name, text]) =>
      [name, new TextEncoder().encode(text)] as const
    );
    const main = { sha: "0".repeat(40), files: new Map(entries) };
    return this.repos[id] = { isPrivate, branches: { main } };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#proxy.close();
    await this.#piping;
    for (const end of this.#ends) end.abort();
    await Promise.all([this.#hub.shutdown(), this.#store.shutdown()]);
  }

  /** Lets connections through to the store, until one is to be cut. */
  async #pipe(): Promise<void> {
    for await (const client of this.#proxy) {
      const store = await Deno.connect({
        hostname: "127.0.0.1",
        port: this.#store.addr.port,
      });
      const end = new AbortController();
      this.#ends.push(end);
      const cut = new TransformStream<Bytes, Bytes>({
        transform: (chunk, controller): void => {
          this.cutAfter -= chunk.length;
          if (this.cutAfter < 0) {
            this.cutAfter = Infinity;
            end.abort();
          } else controller.enqueue(chunk);
        },
      });
      const { signal } = end;
      const stop = (): void => end.abort();
      client.readable.pipeThrough(cut, { signal })
        .pipeTo(store.writable, { signal }).catch(stop);
      store.readable.pipeTo(client.writable, { signal }).catch(stop);
    }
  }

  async #answer(server: Told["server"], request: Request): Promise<Response> {
    const { pathname } = new URL(request.url);
    const told: Told = {
      server,
      what: `${request.method} ${pathname}`,
      token: request.headers.get("authorization"),
    };
    this.told.push(told);
    const other = this.misbehave(told);
    if (other) {
      await request.body?.cancel();
      return other;
    }
    if (server === "store") return await this.#answerStore(pathname, request);
    if (told.token !== `Bearer ${TOKEN}`) {
      return Response.json({ error: "Invalid credentials" }, { status: 401 });
    }
    return await this.#answerHub(pathname, request);
  }

  async #answerHub(pathname: string, request: Request): Promise<Response> {
    if (pathname === "/api/repos/create") return await this.#create(request);
    const [, id, kind, branch] =
      /^\/api\/models\/([^/]+\/[^/]+)(?:\/(\w+)\/(.+))?$/
        .exec(pathname) ?? [];
    if (id === undefined) return await this.#answerGit(pathname, request);
    const repo = this.repos[id];
    if (!repo) return new Response("none", { status: 404 });
    if (kind === undefined) return Response.json({ private: repo.isPrivate });
    const name = decodeURIComponent(branch!);
    const { branches } = repo;
    if (kind === "branch") {
      if (branches[name]) return new Response("there", { status: 409 });
      const { sha, files } = branches["main"]!;
      branches[name] = { sha, files: new Map(files) };
      return Response.json({});
    }
    if (!branches[name]) return new Response("no branch", { status: 404 });
    if (kind === "revision") {
      const { sha, files } = branches[name];
      const siblings = [...files.keys()].map((rfilename) => ({ rfilename }));
      return Response.json({ sha, siblings });
    }
    if (kind === "preupload") {
      const { files } = await request.json();
      return Response.json({
        files: files.map(({ path, size }: { path: string; size: number }) => ({
          path,
          uploadMode: size > LARGE ? "lfs" : "regular",
        })),
      });
    }
    return await this.#commit(branches[name], request);
  }

  async #create(request: Request): Promise<Response> {
    const { organization, name, visibility } = await request.json();
    const id = `${organization}/${name}`;
    if (this.repos[id]) return new Response("exists", { status: 409 });
    this.addRepo(id, visibility === "private");
    return Response.json({ url: `${this.endpoint}/${id}`, id });
  }

  /** Batches of large files, and files of a repository. */
  async #answerGit(pathname: string, request: Request): Promise<Response> {
    const [, id, file] = /^\/(.+)\/resolve\/[0-9a-f]{40}\/(.+)$/
      .exec(pathname) ?? [];
    if (id !== undefined) {
      const bytes = this.repos[id]?.branches["main"]?.files.get(file!);
      return new Response(bytes ?? "none", { status: bytes ? 200 : 404 });
    }
    const { objects } = await request.json();
    const { port } = this.#proxy.addr as Deno.NetAddr;
    const store = `http://127.0.0.1:${port}`;
    const upload = (oid: string, size: number) => {
      const href = `${store}/${oid}?signature=secret`;
      if (size <= this.partBytes) return { href };
      const n = Math.ceil(size / this.partBytes);
      const parts = Array.from({ length: n }, (_, i) => [
        String(i + 1).padStart(5, "0"),
        `${store}/${oid}.${i + 1}?signature=secret`,
      ]);
      const chunk_size = String(this.partBytes);
      return { href, header: { chunk_size, ...Object.fromEntries(parts) } };
    };
    return Response.json({
      transfer: "basic",
      objects: objects.map(({ oid, size }: { oid: string; size: number }) => ({
        oid,
        size,
        ...(!this.objects.has(oid) && {
          actions: { upload: upload(oid, size) },
        }),
      })),
    });
  }

  async #answerStore(pathname: string, request: Request): Promise<Response> {
    const [oid, part] = pathname.slice(1).split(".");
    const body = await request.bytes().catch(() => undefined);
    if (!body) return new Response("cut", { status: 400 });
    if (part !== undefined) {
      this.#parts.set(pathname.slice(1), body);
      return new Response(null, { headers: { etag: `"${part}"` } });
    }
    if (request.method === "PUT") return this.#store_(oid!, body);
    const { parts } = JSON.parse(new TextDecoder().decode(body));
    const all = parts.map(({ partNumber, etag }: {
      partNumber: number;
      etag: string;
    }) =>
      etag === `"${partNumber}"` && this.#parts.get(`${oid}.${partNumber}`)
    );
    return this.#store_(oid!, await new Blob(all).bytes());
  }

  #store_(oid: string, bytes: Bytes): Response {
    if (sha256(bytes) !== oid) return new Response("bad", { status: 400 });
    this.objects.set(oid, bytes);
    return new Response();
  }

  async #commit(
    branch: { sha: string; files: Map<string, Bytes> },
    request: Request,
  ): Promise<Response> {
    const lines = (await request.text()).split("\n").map((line) =>
      JSON.parse(line)
    );
    const { summary, parentCommit } = lines[0].value;
    if (parentCommit !== branch.sha) return new Response("", { status: 412 });
    const paths: string[] = [];
    for (const { key, value } of lines.slice(1)) {
      const bytes = key === "lfsFile"
        ? this.objects.get(value.oid)
        : Uint8Array.fromBase64(value.content);
      if (!bytes) return new Response("no object", { status: 400 });
      branch.files.set(value.path, bytes);
      paths.push(value.path);
    }
    branch.sha = sha256(new TextEncoder().encode(branch.sha)).slice(0, 40);
    this.commits.push({ title: summary, parent: parentCommit, paths });
    return Response.json({
      commitOid: branch.sha,
      commitUrl: "",
      hookOutput: "",
    });
  }
}
