/**
 * What `--text` names: the storybook, a file or a folder, or a dataset of the Hugging Face hub.
 * @module
 */
import { join } from "node:path";
import { directory } from "../core/files.ts";
import {
  formatHubAddress,
  type HubAddress,
  hubCache,
  isCommit,
  parseHubAddress,
  snapshotPath,
} from "../core/hub_cache.ts";
import {
  firstNotCached,
  hubDataset,
  type HubReading,
  textFilesOf,
} from "../core/hub_dataset.ts";
import { type HubListing, readNote } from "../core/hub_files.ts";
import { REAL_TIME, RequestError, withRetries } from "../core/retry.ts";
import { commitOf } from "../core/hub_snapshot.ts";
import type { Folder } from "../core/source.ts";
import {
  type CorpusDocument,
  type DocumentOptions,
  type OpenPath,
  readDocuments,
} from "../core/text.ts";
import { openPath, userPath } from "./cli.ts";
import { variable } from "./environment.ts";
import { openHub } from "./hub_access.ts";
import { exists, isFolder } from "./hub_folder.ts";

/** What `--text` takes, for help. */
export const TEXT_HELP =
  "storybook:SEED:N; a .txt, .jsonl or .parquet file, the first two in .gz or .zst too; a folder of these, also s3://BUCKET/FOLDER; or a dataset of the Hugging Face hub, owner/name[/folder][@revision]";

/** {@link TEXT_HELP} for tasks that show documents, or score them. */
export const DOCUMENTS_HELP =
  `${TEXT_HELP} after ./ocs download --type dataset; a document is a context`;

/** How a dataset of the hub is opened. */
export interface OpenTextOptions {
  /** Ends requests. */
  readonly signal: AbortSignal;
  /** Whether what is not in the cache may be fetched; default not. */
  readonly mayFetch?: boolean;
  /** What an earlier run called the text: its commit is read again where the dataset is the same. */
  readonly before?: string | undefined;
}

/** A text that was found. */
export interface FoundText {
  /** Its name, that opens it again from anywhere; with the commit where it is a dataset. */
  readonly text: string;
  /** Opens it. */
  readonly open: OpenPath;
}

/** Milliseconds without a byte, and failures in a row, after which a request is given up. */
const STALL_MS = 30_000;
const N_ATTEMPTS = 6;
/** Of the first request: a path that was misspelled is told of soon. */
const N_LIST_ATTEMPTS = 3;

/**
 * Finds what was typed. A dataset is read from the cache where it is there, else by ranges over the network.
 * @throws {Error} If there is neither a path nor a dataset of this name, or a part of it may not be fetched.
 */
export async function findText(
  typed: string,
  options: OpenTextOptions,
): Promise<FoundText> {
  if (/^(storybook:|[a-z0-9]+:\/\/)/.test(typed)) {
    return { text: typed, open: openPath };
  }
  const path = userPath(typed);
  const address = exists(path) ? undefined : parseHubAddress(typed, "dataset");
  if (!address) return { text: path, open: openPath };
  const place = hubCache(variable);
  const cache = isFolder(place) ? directory(place) : undefined;
  const reading: HubReading = {
    client: await openHub(STALL_MS),
    retries: { ...REAL_TIME, nAttempts: N_ATTEMPTS },
    signal: options.signal,
  };
  const revision = await revisionOf(address, cache, options.before);
  const listing = await notedListing(address, revision, cache) ??
    await fetchListing(address, revision, options, reading);
  const inside = join(place, snapshotPath(address.repo, listing.commit));
  const snapshot = isFolder(inside) ? directory(inside) : undefined;
  const files = textFilesOf(address, listing);
  const missing = await firstNotCached(files, snapshot);
  if (missing && !options.mayFetch) {
    throw notCached(address, `only a part of it, without ${missing.path}`);
  }
  const pinned = { ...address, revision: listing.commit };
  const folder = hubDataset({ address: pinned, listing, snapshot, reading });
  const text = formatHubAddress(pinned);
  return { text, open: () => Promise.resolve(folder) };
}

/**
 * The documents of what was typed, in the order of its files.
 * @throws {Error} As {@link findText}, and as `readDocuments` of core.
 */
export async function* typedDocuments(
  typed: string,
  signal: AbortSignal,
  options: DocumentOptions = {},
): AsyncGenerator<CorpusDocument> {
  const { text, open } = await findText(typed, { signal });
  yield* readDocuments(text, open, options);
}

/** The `text` in a JSON file that an earlier run wrote; undefined where there is none. */
export async function earlierText(path: string): Promise<string | undefined> {
  try {
    const { text } = JSON.parse(await Deno.readTextFile(path));
    return typeof text === "string" ? text : undefined;
  } catch {
    return undefined; // no earlier run, or what opens its folder says what is wrong
  }
}

/** The commit of an earlier run or of the cache, else what was typed. */
async function revisionOf(
  address: HubAddress,
  cache: Folder | undefined,
  before: string | undefined,
): Promise<string> {
  const { repo, folder, revision } = address;
  if (isCommit(revision)) return revision;
  const earlier = parseHubAddress(before ?? "", "dataset");
  const isSame = earlier?.repo.id === repo.id && earlier.folder === folder;
  if (isSame && isCommit(earlier.revision)) return earlier.revision;
  return (cache && await commitOf(cache, address)) ?? revision;
}

/** The files of a revision as a download has noted them in the cache, if one has. */
async function notedListing(
  { repo }: HubAddress,
  revision: string,
  cache: Folder | undefined,
): Promise<HubListing | undefined> {
  return cache && isCommit(revision)
    ? await readNote(cache, repo, revision)
    : undefined;
}

/** The files of a revision as the hub says. */
async function fetchListing(
  address: HubAddress,
  revision: string,
  { mayFetch }: OpenTextOptions,
  { client, retries, signal }: HubReading,
): Promise<HubListing> {
  if (!mayFetch) throw notCached(address, "nothing of it");
  try {
    const list = () => client.list(address.repo, revision, signal);
    const few = { ...retries, nAttempts: N_LIST_ATTEMPTS };
    return await withRetries(few, signal, list);
  } catch (cause) {
    if (!(cause instanceof RequestError)) throw cause;
    throw new Error(
      `Cannot open text "${
        formatHubAddress(address)
      }": no such file or folder, and as a dataset of the hub: ${cause.message}`,
      { cause },
    );
  }
}

function notCached(address: HubAddress, there: string): Error {
  const { repo, revision } = address;
  const typed = formatHubAddress({ repo, revision, folder: "" });
  return new Error(
    `Cannot open text "${
      formatHubAddress(address)
    }": no such file or folder, and ${there} is in the Hugging Face cache as a dataset: run ./ocs download --type dataset ${typed}`,
  );
}
