/**
 * The part of Weights & Biases' HTTP interface that logs a run: GraphQL makes it
 * or finds it again, and its file stream takes lines at numbered places, so that
 * a request that is sent twice adds nothing twice.
 * @module
 */
import { z } from "zod";

/** Where and as whom to log. */
export interface WandbServer {
  /** Without a slash at its end: "https://api.wandb.ai". */
  readonly baseUrl: string;
  readonly apiKey: string;
}

/** A run to make, or to go on with if there is one of this id. */
export interface WandbRunRequest {
  readonly id: string;
  readonly project: string;
  /** The account's default when absent. */
  readonly entity: string | undefined;
  /** What people call it; W&B makes a name up when absent. */
  readonly name: string | undefined;
  /** Settings of the run, as its page shows them. */
  readonly config: Readonly<Record<string, unknown>>;
}

/** A run as the server knows it. */
export interface WandbRunState {
  readonly id: string;
  readonly project: string;
  readonly entity: string;
  /** Lines of its history. */
  readonly nLines: number;
  /** Step of the last of them; -1 when there is none. */
  readonly lastStep: number;
}

/** What a request to the file stream says; empty, that the run is alive. */
export interface WandbStream {
  /** Lines of the history, to stand from line `offset` on. */
  readonly history?: {
    readonly offset: number;
    readonly lines: readonly string[];
  };
  /** The newest numbers as JSON. */
  readonly summary?: string;
  /** The run is over, with this exit code. */
  readonly exitCode?: number;
}

/** An answer after which it is no use to try again. */
export class WandbRefusal extends Error {}

/** A failure that may pass: no answer, too many requests, an error of the server. */
export class WandbUnavailable extends Error {
  /** @param retryAfterMs What the server asks to wait. */
  constructor(reason: string, readonly retryAfterMs = 0) {
    super(reason);
  }
}

const REQUEST_TIMEOUT_MS = 30_000;
const SHOWN = 200;

const FIND_RUN =
  `query FindRun($entity: String, $project: String, $id: String!) {
  model(entityName: $entity, name: $project) {
    bucket(name: $id, missingOk: true) { historyLineCount historyTail }
  }
}`;

const PUT_RUN =
  `mutation PutRun($id: String!, $entity: String, $project: String, $name: String, $config: JSONString) {
  upsertBucket(input: {
    name: $id, entityName: $entity, modelName: $project, displayName: $name, config: $config, state: "running"
  }) {
    bucket { name project { name entity { name } } }
  }
}`;

const FoundRun = z.object({
  model: z.object({
    bucket: z.object({
      historyLineCount: z.int().min(0).nullish(),
      historyTail: z.string().nullish(),
    }).nullish(),
  }).nullish(),
});

const PutRun = z.object({
  upsertBucket: z.object({
    bucket: z.object({
      name: z.string(),
      project: z.object({
        name: z.string(),
        entity: z.object({ name: z.string() }),
      }),
    }),
  }),
});

/** Calls the server; every failure is a {@link WandbRefusal} or a {@link WandbUnavailable}. */
export class WandbApi {
  readonly #server: WandbServer;
  readonly #signal: AbortSignal;

  /** @param signal Ends requests that are under way. */
  constructor(server: WandbServer, signal: AbortSignal) {
    this.#server = server;
    this.#signal = signal;
  }

  /**
   * Makes a run, or finds the one of this id again.
   * @param mayExist Whether an earlier process may have made it.
   */
  async open(
    run: WandbRunRequest,
    mayExist: boolean,
  ): Promise<WandbRunState> {
    const { id, project, entity, name, config } = run;
    const before = mayExist
      ? await this.#find(run)
      : { nLines: 0, lastStep: -1 };
    const values = Object.fromEntries(
      Object.entries(config).map(([key, value]) => [key, { value }]),
    );
    const { upsertBucket: { bucket } } = await this.#graphql(PutRun, PUT_RUN, {
      id,
      project,
      entity,
      name,
      config: JSON.stringify(values),
    });
    return {
      id: bucket.name,
      project: bucket.project.name,
      entity: bucket.project.entity.name,
      ...before,
    };
  }

  /** Sends lines, a summary, the end, or a sign of life. */
  async stream(run: WandbRunState, stream: WandbStream): Promise<void> {
    const { history, summary, exitCode } = stream;
    const place = [run.entity, run.project, run.id].map(encodeURIComponent);
    const files = {
      ...(history && {
        "wandb-history.jsonl": {
          offset: history.offset,
          content: history.lines,
        },
      }),
      ...(summary !== undefined && {
        "wandb-summary.json": { offset: 0, content: [summary] },
      }),
    };
    await this.#post(`files/${place.join("/")}/file_stream`, {
      ...(Object.keys(files).length > 0 && { files }),
      ...(exitCode !== undefined && { complete: true, exitcode: exitCode }),
    });
  }

  async #find(
    { id, project, entity }: WandbRunRequest,
  ): Promise<Pick<WandbRunState, "nLines" | "lastStep">> {
    const variables = { id, project, entity };
    const { model } = await this.#graphql(FoundRun, FIND_RUN, variables);
    const nLines = model?.bucket?.historyLineCount ?? 0;
    const lastStep = nLines > 0 ? stepOfTail(model?.bucket?.historyTail) : -1;
    return { nLines, lastStep };
  }

  async #graphql<T>(
    schema: z.ZodType<T>,
    query: string,
    variables: Readonly<Record<string, unknown>>,
  ): Promise<T> {
    const answer = await this.#post("graphql", { query, variables });
    const { data, errors } = Answer.safeParse(answer).data ?? {};
    if (errors && errors.length > 0) {
      throw new WandbRefusal(shorten(errors[0]!.message));
    }
    const parsed = schema.safeParse(data);
    if (parsed.success) return parsed.data;
    throw new WandbRefusal(
      `expected a run: got ${shorten(JSON.stringify(answer))}`,
    );
  }

  async #post(path: string, body: unknown): Promise<unknown> {
    const { baseUrl, apiKey } = this.#server;
    let response: Response;
    let text: string;
    try {
      response = await fetch(`${baseUrl}/${path}`, {
        method: "POST",
        headers: {
          "content-type": "application/json",
          "authorization": `Basic ${btoa(`api:${apiKey}`)}`,
        },
        body: JSON.stringify(body),
        signal: AbortSignal.any([
          this.#signal,
          AbortSignal.timeout(REQUEST_TIMEOUT_MS),
        ]),
      });
      text = await response.text();
    } catch (cause) {
      throw failure(cause);
    }
    if (!response.ok) throw unsuccessful(response, text);
    try {
      return JSON.parse(text);
    } catch {
      return undefined; // The schema refuses it where an answer matters.
    }
  }
}

const Answer = z.object({
  data: z.unknown(),
  errors: z.array(z.object({ message: z.string() })).nullish(),
});

/** Step in the last line of a JSON list of JSON lines. */
function stepOfTail(tail: string | null | undefined): number {
  try {
    const step = JSON.parse(JSON.parse(tail ?? "[]").at(-1))["_step"];
    if (Number.isInteger(step)) return step;
  } catch {
    // Said below.
  }
  throw new WandbRefusal(
    `expected the step of the run's last line: got ${shorten(String(tail))}`,
  );
}

/** What a request failed with before there was an answer. */
function failure(cause: unknown): Error {
  const reason = cause instanceof Error ? cause.message : String(cause);
  const isForbidden = cause instanceof Deno.errors.NotCapable;
  return isForbidden
    ? new WandbRefusal(shorten(reason))
    : new WandbUnavailable(shorten(reason));
}

function unsuccessful(
  { status, statusText, headers }: Response,
  text: string,
): Error {
  const reason = shorten(`${status} ${statusText} ${text}`);
  const mayPass = status === 408 || status === 429 || status >= 500;
  if (!mayPass) return new WandbRefusal(reason);
  const seconds = Number(headers.get("retry-after") ?? 0);
  return new WandbUnavailable(reason, seconds > 0 ? 1000 * seconds : 0);
}

/** One short line of what a server said. */
function shorten(text: string): string {
  const line = text.replace(/\p{Cc}+|\s+/gu, " ").trim();
  return line.length > SHOWN ? `${line.slice(0, SHOWN)}…` : line;
}
