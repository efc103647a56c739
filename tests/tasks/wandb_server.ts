/**
 * A server on this machine that answers as Weights & Biases does, and remembers
 * what it was told.
 * @module
 */
import { deepEqual, equal } from "node:assert/strict";

/** A run as the server keeps it. */
export interface ServedRun {
  readonly project: string;
  readonly entity: string;
  name: string | undefined;
  config: Record<string, { readonly value: unknown }>;
  /** History by line number; a hole is a line that never came. */
  readonly history: Record<string, unknown>[];
  summary: Record<string, unknown> | undefined;
  exitCode: number | undefined;
}

/** What the server does with the next request to a path. */
export interface Misfortune {
  readonly path: "graphql" | "file_stream";
  readonly status: number;
  readonly headers?: Readonly<Record<string, string>>;
  /** Whether what was sent is kept all the same, as when the answer is lost. */
  readonly isKept?: boolean;
}

/** The server. */
export class FakeWandb implements AsyncDisposable {
  static readonly KEY = "a1b2c3d4e5f6";
  readonly runs = new Map<string, ServedRun>();
  /** Used up from the front. */
  readonly misfortunes: Misfortune[] = [];
  /** "graphql" and "file_stream" in the order in which they came. */
  readonly requests: string[] = [];
  /** Requests that said nothing but that the run is alive. */
  nAlive = 0;
  readonly #server: Deno.HttpServer<Deno.NetAddr>;

  constructor(port = 0) {
    this.#server = Deno.serve(
      { hostname: "127.0.0.1", port, onListen: () => {} },
      (request) => this.#answer(request),
    );
  }

  get baseUrl(): string {
    return `http://127.0.0.1:${this.#server.addr.port}`;
  }

  get port(): number {
    return this.#server.addr.port;
  }

  /** The only run. */
  get run(): ServedRun {
    equal(this.runs.size, 1);
    return [...this.runs.values()][0]!;
  }

  /** Steps of a run's history, in the order of its lines. */
  get steps(): unknown[] {
    return Array.from(this.run.history, (line) => line?.["_step"]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server.shutdown();
  }

  async #answer(request: Request): Promise<Response> {
    const { pathname } = new URL(request.url);
    const body = await request.json();
    if (
      request.headers.get("authorization") !==
        `Basic ${btoa(`api:${FakeWandb.KEY}`)}`
    ) return Response.json({ error: "wrong key" }, { status: 401 });
    const path = pathname === "/graphql" ? "graphql" : "file_stream";
    this.requests.push(path);
    let misfortune: Misfortune | undefined;
    if (this.misfortunes[0]?.path === path) {
      misfortune = this.misfortunes.shift();
    }
    const answer = (): Response =>
      path === "graphql" ? this.#graphql(body) : this.#stream(pathname, body);
    if (!misfortune) return answer();
    if (misfortune.isKept) answer();
    const { status, headers = {} } = misfortune;
    return new Response("no luck", { status, headers });
  }

  #graphql(
    { query, variables }: { query: string; variables: Record<string, string> },
  ): Response {
    const { id, project = "", entity = "me", name, config } = variables;
    const run = this.runs.get(id!);
    if (query.startsWith("query")) {
      const tail = run?.history.slice(-1).map((line) => JSON.stringify(line));
      const bucket = run && {
        historyLineCount: run.history.length,
        historyTail: JSON.stringify(tail),
      };
      return Response.json({ data: { model: { bucket: bucket ?? null } } });
    }
    if (project === "forbidden") {
      const errors = [{ message: "permission denied" }];
      return Response.json({ data: { upsertBucket: null }, errors });
    }
    const served = run ?? {
      project,
      entity,
      name,
      config: {},
      history: [],
      summary: undefined,
      exitCode: undefined,
    };
    served.config = JSON.parse(config!);
    served.exitCode = undefined;
    this.runs.set(id!, served);
    const bucket = {
      name: id,
      project: { name: project, entity: { name: entity } },
    };
    return Response.json({ data: { upsertBucket: { bucket } } });
  }

  #stream(pathname: string, body: Record<string, unknown>): Response {
    const [, , entity, project, id] = pathname.split("/").map(
      decodeURIComponent,
    );
    const run = this.runs.get(id!);
    if (!run) return new Response("no such run", { status: 404 });
    deepEqual([run.entity, run.project], [entity, project]);
    const files = (body["files"] ?? {}) as Record<
      string,
      { offset: number; content: string[] }
    >;
    if (Object.keys(body).length === 0) this.nAlive++;
    for (const [name, { offset, content }] of Object.entries(files)) {
      const lines = content.map((line) => JSON.parse(line));
      if (name === "wandb-summary.json") run.summary = lines[0];
      else if (name === "wandb-history.jsonl") {
        for (const [i, line] of lines.entries()) run.history[offset + i] = line;
      } else return new Response("no such file", { status: 400 });
    }
    if (body["complete"] === true) run.exitCode = body["exitcode"] as number;
    return Response.json({});
  }
}
