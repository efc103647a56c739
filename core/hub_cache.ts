/**
 * Where the Hugging Face cache has what: names and paths only, so that this side and
 * Python's `huggingface_hub` find each other's files.
 *
 * ```
 * models--owner--name/blobs/HASH                what files hold, by SHA-256 (large files) or Git's SHA-1
 *                     refs/REVISION             the commit of a branch or tag, as text
 *                     snapshots/COMMIT/FILE     → ../../blobs/HASH
 *                     ocs/COMMIT.json           ours: the files that there are, and those that were asked for
 * ```
 *
 * They are these few lines instead of the npm package `@huggingface/hub`, which cannot resume; uploads go through it.
 * @module
 */
import { checkFileName } from "./source.ts";

/** What a repository holds. */
export type HubRepoType = "model" | "dataset";

/** A repository of the hub. */
export interface HubRepo {
  readonly type: HubRepoType;
  /** `owner/name`. */
  readonly id: string;
}

/** A place on the hub: `owner/name/folder@revision`. */
export interface HubAddress {
  readonly repo: HubRepo;
  /** Folder inside the repository, without slashes at its ends; "" for all of it. */
  readonly folder: string;
  /** A branch, a tag or a commit. */
  readonly revision: string;
}

/** The branch that is meant where none is named. */
export const DEFAULT_REVISION = "main";

/** Reads a variable of the environment; undefined where it is not set. */
export type Environment = (name: string) => string | undefined;

const NAME = /^[A-Za-z0-9_](?:[\w.-]*[A-Za-z0-9_])?$/;
const COMMIT = /^[0-9a-f]{40}$/;

/** Whether a revision is a commit, which stands for the same files forever. */
export function isCommit(revision: string): boolean {
  return COMMIT.test(revision);
}

/** Whether a text is `owner/name` as the hub allows it. */
function isRepoId(id: string): boolean {
  const parts = id.split("/");
  return parts.length === 2 && parts.every((part) => NAME.test(part)) &&
    id.length <= 96 && !/--|\.\.|\.git$/.test(id);
}

/** Whether a text can be a branch, tag or commit, and a path under `refs`. */
function isRevision(revision: string): boolean {
  return /^[\w.+-]+(?:\/[\w.+-]+)*$/.test(revision) &&
    revision.split("/").every((part) => !/^\.+$/.test(part));
}

/**
 * Reads `owner/name`, `owner/name@revision`, `owner/name/folder` or `owner/name/folder@revision`.
 * @returns undefined if the text has none of these forms.
 */
export function parseHubAddress(
  text: string,
  type: HubRepoType = "model",
): HubAddress | undefined {
  const at = text.indexOf("@");
  const path = at < 0 ? text : text.slice(0, at);
  const revision = at < 0 ? DEFAULT_REVISION : text.slice(at + 1);
  const parts = path.split("/");
  const id = parts.slice(0, 2).join("/");
  const folder = parts.slice(2).join("/");
  const isSafe = parts.slice(2).every((part) => /^[\w.+= -]+$/.test(part)) &&
    !parts.some((part) => /^\.+$/.test(part));
  if (!isRepoId(id) || !isRevision(revision) || !isSafe) return undefined;
  return { repo: { type, id }, folder, revision };
}

/** An address as it is typed. */
export function formatHubAddress(address: HubAddress): string {
  const { repo, folder, revision } = address;
  const path = folder === "" ? repo.id : `${repo.id}/${folder}`;
  return revision === DEFAULT_REVISION ? path : `${path}@${revision}`;
}

/**
 * The user's folder for all of Hugging Face: `HF_HOME`, else in the cache folder.
 * @throws {Error} If no variable tells.
 */
export function hubHome(env: Environment): string {
  const own = env("HF_HOME");
  if (own) return expandHome(own, env);
  const cache = env("XDG_CACHE_HOME");
  return `${
    cache ? expandHome(cache, env) : `${home(env)}/.cache`
  }/huggingface`;
}

/**
 * The cache: `HF_HUB_CACHE`, else `hub` in {@link hubHome}.
 * @throws {Error} If no variable tells.
 */
export function hubCache(env: Environment): string {
  const own = env("HF_HUB_CACHE");
  return own ? expandHome(own, env) : `${hubHome(env)}/hub`;
}

function home(env: Environment): string {
  const path = env("HOME") || env("USERPROFILE");
  if (path) return path;
  throw new Error(
    "Cannot find the Hugging Face cache: expected HOME, HF_HOME or HF_HUB_CACHE in the environment: got none: set HF_HOME",
  );
}

function expandHome(path: string, env: Environment): string {
  return /^~(?=$|[/\\])/.test(path) ? home(env) + path.slice(1) : path;
}

/** The folder of a repository in the cache. */
export function repoFolder({ type, id }: HubRepo): string {
  return `${type}s--${id.replaceAll("/", "--")}`;
}

/** The file in the cache that tells the commit of a branch or tag. */
export function refPath(repo: HubRepo, revision: string): string {
  return `${repoFolder(repo)}/refs/${revision}`;
}

/** The folder in the cache of a commit's files. */
export function snapshotPath(repo: HubRepo, commit: string): string {
  return `${repoFolder(repo)}/snapshots/${commit}`;
}

/** What a file of a snapshot links to. */
export function blobLink(file: string, hash: string): string {
  const depth = file.split("/").length - 1;
  return `${"../".repeat(depth + 2)}blobs/${hash}`;
}

/** The folder in the cache of what this side notes of a repository; Python passes it over. */
export function notesFolder(repo: HubRepo): string {
  return `${repoFolder(repo)}/ocs`;
}

/** What people call the folder at a path: `owner/name` of a snapshot in the cache, else the folder's own name. */
export function nameOfFolder(path: string): string {
  const parts = path.split(/[/\\]+/).filter(Boolean);
  const at = parts.lastIndexOf("snapshots");
  const repo = /^(?:models|datasets)--(.+)$/.exec(parts[at - 1] ?? "");
  if (repo && isCommit(parts[at + 1] ?? "")) {
    return [repo[1]!.replace("--", "/"), ...parts.slice(at + 2)].join("/");
  }
  return parts.at(-1) ?? path;
}

/** The commit of the snapshot in the cache that a path leads to or into; undefined of other folders. */
export function commitOfFolder(path: string): string | undefined {
  const parts = path.split(/[/\\]+/);
  const commit = parts[parts.lastIndexOf("snapshots") + 1] ?? "";
  return isCommit(commit) ? commit : undefined;
}

/**
 * Checks the name of a file that a server gave.
 * @throws {RangeError} If it would lead out of its folder, or a terminal or a file system would stumble over it.
 */
export function checkHubFileName(repo: HubRepo, file: string): void {
  checkFileName(repo.id, file);
  const isLong = file.split("/").some((part) =>
    new TextEncoder().encode(part).length > 255
  );
  if (!/\p{C}/u.test(file) && !isLong) return;
  throw new RangeError(
    `Cannot take ${
      JSON.stringify(file).slice(0, 300)
    } of "${repo.id}": expected a file name of at most 255 bytes without control characters`,
  );
}
