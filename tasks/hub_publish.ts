/**
 * One commit to a repository of the Hugging Face hub: all files or none.
 * @module
 */
import { commitIter } from "@huggingface/hub";
import { z } from "zod";
import { shorten } from "../core/hub_answer.ts";
import { DEFAULT_REVISION } from "../core/hub_cache.ts";
import { RequestError, type RetryPolicy } from "../core/retry.ts";
import { hubFetch } from "./hub_fetch.ts";

/** What is published, and where. */
export interface Publication {
  /** Address of the hub, with a slash at its end. */
  readonly endpoint: URL;
  readonly token: string;
  /** `owner/name`. */
  readonly id: string;
  /** The branch; it is made where it is not there. */
  readonly branch: string;
  /** Whether a repository that is not there yet is made private; one that is there must be then. */
  readonly isPrivate: boolean;
  /** First line of the commit. */
  readonly title: string;
  /** By path in the repository. */
  readonly files: ReadonlyMap<string, Blob>;
  /** The text of the card at the root, given what is there. */
  readonly card: (existing: string | undefined) => string | undefined;
  readonly retries: RetryPolicy;
  readonly signal: AbortSignal;
  /** Told of bytes of large files that were sent, and, below 0, of those that must be sent again. */
  readonly onSent: (nBytes: number) => void;
  /** Told what is under way. */
  readonly onPhase: (phase: string) => void;
}

/** Card of a repository. */
export const CARD_FILE = "README.md";

const Repo = z.object({ private: z.boolean() });
const Revision = z.object({
  sha: z.string().regex(/^[0-9a-f]{40}$/),
  siblings: z.array(z.object({ rfilename: z.string() })),
});

/**
 * Makes the repository and the branch where they are missing, uploads, and commits. Until the commit nothing is published;
 * what had arrived before a failure is not sent again.
 * @returns The commit.
 * @throws {Error} If the hub refuses or fails: says why in one line.
 */
export async function publish(publication: Publication): Promise<string> {
  const { id, signal } = publication;
  try {
    return await commit(publication);
  } catch (error) {
    signal.throwIfAborted();
    // Errors of the package have addresses with signatures in them.
    const reason = error instanceof RequestError
      ? error.message
      : "the hub answered otherwise than expected";
    throw new Error(`Cannot publish to "${id}": ${reason}`, { cause: error });
  }
}

async function commit(publication: Publication): Promise<string> {
  const { id, branch, title, files, card, signal } = publication;
  const { endpoint, onPhase } = publication;
  const request = hubFetch(publication);
  await makeRepo(publication);
  const encoded = encodeURIComponent(branch);
  const revision = await answerOf(
    Revision,
    await request(new URL(`api/models/${id}/revision/${encoded}`, endpoint)),
  );
  const hasCard = revision.siblings.some(({ rfilename }) =>
    rfilename === CARD_FILE
  );
  const cardUrl = new URL(
    `${id}/resolve/${revision.sha}/${CARD_FILE}`,
    endpoint,
  );
  const existing = hasCard ? await (await request(cardUrl)).text() : undefined;
  const text = card(existing);
  const all = new Map(files);
  if (text !== undefined) all.set(CARD_FILE, new Blob([text]));
  const commits = commitIter({
    repo: { type: "model", name: id },
    hubUrl: endpoint.href.replace(/\/$/, ""),
    branch,
    title,
    parentCommit: revision.sha,
    operations: [...all].map(([path, content]) => ({
      operation: "addOrUpdate",
      path,
      content,
    })),
    // Plain requests, which every hub understands.
    useXet: false,
    fetch: request,
    abortSignal: signal,
  });
  while (true) {
    const { done, value } = await commits.next();
    if (done) return shorten(String(value?.commit.oid));
    if (value.event === "phase") onPhase(PHASES[value.phase]);
    else if (value.state === "hashing") onPhase(`hashing ${value.path}`);
    else if (value.state === "uploading") onPhase(`sending ${value.path}`);
  }
}

const PHASES = {
  preuploading: "asking what is new",
  uploadingLargeFiles: "sending large files",
  committing: "committing",
} as const;

/** Makes the repository and the branch where they are missing. */
async function makeRepo(publication: Publication): Promise<void> {
  const { id, branch, isPrivate, endpoint } = publication;
  const ask = (path: string, taken: number[], body?: unknown) =>
    hubFetch({ ...publication, taken })(
      new URL(path, endpoint),
      body === undefined ? {} : {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify(body),
      },
    );
  let repo = await ask(`api/models/${id}`, [404]);
  if (repo.status === 404) {
    await repo.body?.cancel();
    const [organization, name] = id.split("/");
    const visibility = isPrivate ? "private" : "public";
    const made = await ask("api/repos/create", [409], {
      ...{ type: "model", organization, name, visibility },
    });
    await made.body?.cancel();
    repo = await ask(`api/models/${id}`, []);
  }
  const found = await answerOf(Repo, repo);
  if (isPrivate && !found.private) {
    throw new RequestError(
      "expected a private repository, as --private asks: got a public one: make it private first, or leave --private out",
    );
  }
  if (branch === DEFAULT_REVISION) return;
  const path = `api/models/${id}/branch/${encodeURIComponent(branch)}`;
  const made = await ask(path, [409], {});
  await made.body?.cancel();
}

/** An answer's JSON, as it must be. */
async function answerOf<T>(
  schema: z.ZodType<T>,
  response: Response,
): Promise<T> {
  const json: unknown = await response.json().catch(() => undefined);
  const result = schema.safeParse(json);
  if (result.success) return result.data;
  throw new RequestError(
    "expected what a hub says of a repository: got other text",
  );
}
