/**
 * `download`: a model or an SAE of the Hugging Face hub, into the cache that Python shares.
 * @module
 */
// deno-lint-ignore-file no-console
import { directory } from "../core/files.ts";
import type { ConfigOf, FlagTable } from "../core/flags.ts";
import {
  DEFAULT_REVISION,
  type HubAddress,
  hubCache,
  isCommit,
  parseHubAddress,
} from "../core/hub_cache.ts";
import type { HubClient } from "../core/hub_client.ts";
import { downloadFiles } from "../core/hub_download.ts";
import {
  chooseFiles,
  firstMissing,
  type HubFile,
  type HubListing,
  type HubNote,
  readNote,
} from "../core/hub_files.ts";
import {
  REAL_TIME,
  RequestError,
  type RetryPolicy,
  withRetries,
} from "../core/retry.ts";
import { runTask, type TaskContext } from "./cli.ts";
import { variable } from "./environment.ts";
import { formatBytes, formatTable } from "./format.ts";
import { openHub } from "./hub_access.ts";
import { isFolder } from "./hub_folder.ts";
import { CacheStore, freeBytes, lockRepo } from "./hub_store.ts";

const FLAGS = {
  repo: {
    type: "string",
    required: true,
    help: "owner/name, or owner/name/folder for a part of it",
  },
  type: {
    default: "model",
    choices: ["model", "dataset"] as const,
    help: "kind of repository; SAEs are models",
  },
  revision: {
    type: "string",
    help:
      "branch, tag or commit; main without it. A commit that is there needs no network",
  },
  include: {
    type: "strings",
    help:
      'take files like "*.json" (* matches / too), several times; what tasks read of a model, all of a dataset without it',
  },
  exclude: { type: "strings", help: "leave out files like this; wins" },
  list: { default: false, help: "print the files and their sizes, and end" },
  connections: {
    default: 4,
    integer: true,
    min: 1,
    max: 64,
    help: "requests at once",
  },
  range: {
    default: 32,
    min: 0.0625,
    max: 4096,
    unit: "MiB",
    help: "length of one request; what a killed run loses at most of each",
  },
  timeout: {
    default: 30,
    min: 0.1,
    max: 3600,
    unit: "s",
    help: "without a byte, after which a request is made anew",
  },
  attempts: {
    default: 6,
    integer: true,
    min: 1,
    max: 100,
    help: "failures of a request in a row after which it is given up",
  },
} as const satisfies FlagTable;

type Flags = ConfigOf<typeof FLAGS>;

/** What the flags mean. */
interface Plan {
  readonly address: HubAddress;
  /** Folder of the cache. */
  readonly cache: string;
  readonly client: HubClient;
  readonly retries: RetryPolicy;
}

async function planOf(flags: Flags): Promise<Plan> {
  const parsed = parseHubAddress(flags.repo, flags.type);
  if (!parsed) {
    throw new TypeError(
      `Cannot download ${
        JSON.stringify(flags.repo)
      }: expected owner/name of a repository, such as allenai/OLMo-2-0425-1B: got another form`,
    );
  }
  const address = { ...parsed, revision: flags.revision ?? parsed.revision };
  const isSaidTwice = flags.revision !== undefined &&
    ![DEFAULT_REVISION, flags.revision].includes(parsed.revision);
  const { id } = address.repo;
  if (isSaidTwice || !parseHubAddress(`${id}@${address.revision}`)) {
    throw new TypeError(
      `Cannot download "${id}": expected one branch, tag or commit: got ${
        JSON.stringify(
          isSaidTwice
            ? `${parsed.revision}, ${flags.revision}`
            : flags.revision,
        )
      }`,
    );
  }
  const client = await openHub(1000 * flags.timeout);
  const retries = { ...REAL_TIME, nAttempts: flags.attempts };
  return { address, cache: hubCache(variable), client, retries };
}

/** What a commit has: noted in the cache, or as the hub says. */
async function listFiles(
  { address, cache, client, retries }: Plan,
  signal: AbortSignal,
): Promise<HubListing> {
  const { repo, revision } = address;
  if (isCommit(revision) && isFolder(cache)) {
    const note = await readNote(directory(cache), repo, revision);
    if (note) return note;
  }
  try {
    const list = () => client.list(repo, revision, signal);
    return await withRetries(retries, signal, list);
  } catch (error) {
    if (!(error instanceof RequestError)) throw error;
    const message = `Cannot download "${repo.id}": ${error.message}`;
    throw new Error(message, { cause: error });
  }
}

function printFiles(files: readonly HubFile[]): void {
  const rows = files.map(({ path, size }) => [path, formatBytes(size)]);
  const total = files.reduce((sum, { size }) => sum + size, 0);
  console.log(formatTable(["file", "size"], rows));
  console.log(`${files.length} files, ${formatBytes(total)}`);
}

/**
 * Throws if what is missing does not fit on the disk.
 * @throws {RangeError} With both sizes.
 */
async function checkSpace(
  store: CacheStore,
  files: readonly HubFile[],
  { address, cache }: Plan,
): Promise<void> {
  let missing = 0;
  for (const file of new Map(files.map((file) => [file.hash, file])).values()) {
    missing += await store.missingBytes(file);
  }
  const free = await freeBytes(cache);
  if (free === undefined || missing <= free) return;
  throw new RangeError(
    `Cannot download "${address.repo.id}": expected ${
      formatBytes(missing)
    } free at "${cache}": got ${
      formatBytes(free)
    }: free some space, name another folder in HF_HUB_CACHE, or leave files out with --exclude`,
  );
}

async function fetchFiles(
  flags: Flags,
  plan: Plan,
  listing: HubListing,
  files: readonly HubFile[],
  context: TaskContext,
): Promise<void> {
  const { address: { repo, revision }, cache, client, retries } = plan;
  const { signal } = context;
  await using _ = await lockRepo(cache, repo, signal, () => {
    context.note(`waiting for another download of ${repo.id}`);
  });
  const store = new CacheStore(cache, repo, listing.commit);
  await checkSpace(store, files, plan);
  const before = await readNote(directory(cache), repo, listing.commit);
  const wanted = new Set([
    ...before?.wanted ?? [],
    ...files.map(({ path }) => path),
  ]);
  const note: HubNote = { ...listing, revision, wanted: [...wanted].sort() };
  await store.writeNote(note);
  const byHash = new Map(files.map(({ hash, size }) => [hash, size]));
  const total = byHash.values().reduce((sum, size) => sum + size, 0);
  using progress = context.progress({
    label: "download",
    unit: "MB",
    total: total / 1e6,
  });
  await downloadFiles(client, repo, { ...listing, files }, store, {
    nConnections: flags.connections,
    rangeBytes: Math.ceil(flags.range * 2 ** 20),
    ...{ retries, signal },
    onProgress: (nBytes) => progress.update(nBytes / 1e6),
  });
  progress.end();
  await store.link(files);
  await store.writeRef(revision);
}

if (import.meta.main) {
  await runTask({
    name: "download",
    description:
      "Downloads a model or an SAE of the Hugging Face hub into the cache that Python shares; a token is taken from HF_TOKEN",
    flags: FLAGS,
    positionals: ["repo"],
    afterInterrupt:
      "what has arrived is kept: run the same command to go on where it stopped",
  }, async (flags, context) => {
    const plan = await planOf(flags);
    const { address: { repo, revision, folder }, cache } = plan;
    const listing = await listFiles(plan, context.signal);
    const files = chooseFiles(repo, listing, { ...flags, folder });
    if (flags.list) return printFiles(files);
    const { commit } = listing;
    const isThere = isCommit(revision) && isFolder(cache) &&
      await firstMissing(directory(cache), repo, commit, files) === undefined;
    if (!isThere) await fetchFiles(flags, plan, listing, files, context);
    console.log(new CacheStore(cache, repo, commit).snapshot);
  });
}
