/**
 * Looks up what lies in the Hugging Face cache; reads only, and never the network.
 * @module
 */
import {
  formatHubAddress,
  type HubAddress,
  isCommit,
  notesFolder,
  refPath,
  snapshotPath,
} from "./hub_cache.ts";
import {
  firstMissing,
  type HubNote,
  isReadByTasks,
  readNote,
} from "./hub_files.ts";
import { type Folder, readJson, readText } from "./source.ts";

const INDEX_FILE = "model.safetensors.index.json";

/** Opens a folder of the cache by its path inside; undefined where there is none. */
export type OpenFolder = (path: string) => Folder | undefined;

/**
 * The path inside the cache of the folder that an address means.
 * @param what What it is to be, for errors: "model".
 * @param open Opens folders of the cache; "" is the cache itself.
 * @param place What errors call the cache.
 * @throws {Error} If it is not in the cache, or not all of it: names the first file that is missing and the command that fetches it.
 */
export async function findSnapshot(
  what: string,
  address: HubAddress,
  open: OpenFolder,
  place: string,
): Promise<string> {
  const { repo, folder, revision } = address;
  const typed = formatHubAddress(address);
  const refuse = (problem: string): Error =>
    new Error(
      `Cannot open ${what} "${typed}": ${problem}: run ${
        downloadCommand(address)
      }`,
    );
  const inPart = (missing: string): Error =>
    refuse(`only a part of it is at "${place}", without ${missing}`);
  const cache = open("");
  const absent =
    `no such folder, and not in the Hugging Face cache at "${place}"`;
  if (!cache) throw refuse(absent);
  const commit = await commitOf(cache, address);
  if (commit === undefined) {
    const begun = await findBegun(cache, address, open);
    if (!begun) throw refuse(absent);
    throw inPart(await missingFile(cache, address, begun.commit) ?? "its ref");
  }
  const missing = await missingFile(cache, address, commit);
  const snapshot = open(snapshotPath(repo, commit));
  if (missing !== undefined) throw inPart(missing);
  if (!snapshot) throw refuse(absent);
  const shard = await missingShard(snapshot);
  if (shard !== undefined) throw inPart(shard);
  const path = folder === ""
    ? snapshotPath(repo, commit)
    : `${snapshotPath(repo, commit)}/${folder}`;
  if (folder !== "" && !open(path)) {
    throw refuse(
      `no folder "${folder}" of ${repo.id}@${revision} in "${place}"`,
    );
  }
  return path;
}

/** What a person types to fetch what an address means. */
export function downloadCommand(address: HubAddress): string {
  const typed = formatHubAddress(address);
  return `./ocs download ${/\s/.test(typed) ? JSON.stringify(typed) : typed}`;
}

/** The commit that a revision stands for in the cache; undefined where it has none. */
export async function commitOf(
  cache: Folder,
  { repo, revision }: HubAddress,
): Promise<string | undefined> {
  if (isCommit(revision)) return revision;
  const path = refPath(repo, revision);
  if (!await cache.has(path)) return undefined;
  const commit = (await readText(await cache.open(path))).trim();
  if (isCommit(commit)) return commit;
  throw new SyntaxError(
    `Cannot read "${cache.name}/${path}": expected a commit of 40 hex digits: remove the file, and download again`,
  );
}

/** The first file that is missing of those in the folder that a download was asked for and tasks read; undefined where none is known to be. */
async function missingFile(
  cache: Folder,
  { repo, folder }: HubAddress,
  commit: string,
): Promise<string | undefined> {
  const note = await readNote(cache, repo, commit);
  const wanted = new Set(note?.wanted);
  const files = note?.files.filter(({ path }) =>
    wanted.has(path) && isReadByTasks(path) &&
    path.slice(0, Math.max(0, path.lastIndexOf("/"))) === folder
  );
  return await firstMissing(cache, repo, commit, files ?? []);
}

/** The note on a download of a revision that has not come to its end. */
async function findBegun(
  cache: Folder,
  { repo, revision }: HubAddress,
  open: OpenFolder,
): Promise<HubNote | undefined> {
  for (const name of await open(notesFolder(repo))?.list() ?? []) {
    const commit = name.replace(/\.json$/, "");
    if (!isCommit(commit)) continue;
    const note = await readNote(cache, repo, commit);
    if (note?.revision === revision) return note;
  }
  return undefined;
}

/** The first shard of a checkpoint that is missing, as where Python was stopped. */
async function missingShard(snapshot: Folder): Promise<string | undefined> {
  if (!await snapshot.has(INDEX_FILE)) return undefined;
  const index = await readJson(await snapshot.open(INDEX_FILE));
  const map = typeof index === "object" && index !== null &&
      "weight_map" in index
    ? index.weight_map
    : undefined;
  for (const shard of new Set(Object.values(map ?? {}))) {
    // What is no plain file name is refused where the checkpoint is opened.
    if (typeof shard !== "string" || !/^[^/\\:\0]+$/.test(shard)) continue;
    if (!await snapshot.has(shard)) return shard;
  }
  return undefined;
}
