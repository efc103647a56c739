/**
 * The text of a dataset repository of the Hugging Face hub, read by ranges: nothing is downloaded whole.
 * Files that are in the cache are read there.
 * @module
 */
import { formatHubAddress, type HubAddress } from "./hub_cache.ts";
import { type HubClient, RangesIgnored } from "./hub_client.ts";
import type { HubFile, HubListing } from "./hub_files.ts";
import { RequestError, type RetryPolicy, withRetries } from "./retry.ts";
import { checkRange, type Folder, missingFile, type Source } from "./source.ts";
import { isTextFile } from "./text_files.ts";

/** How files are fetched. */
export interface HubReading {
  readonly client: HubClient;
  readonly retries: RetryPolicy;
  readonly signal: AbortSignal;
}

/** A dataset at one commit. */
export interface HubDatasetOptions {
  /** The dataset, or a folder or a file of it, at a commit. */
  readonly address: HubAddress;
  readonly listing: HubListing;
  /** The commit's folder in the cache, if there is one. */
  readonly snapshot: Folder | undefined;
  /** Fetches what is not in the cache. */
  readonly reading: HubReading;
}

/**
 * The files of text that an address means: parquet files where there are any, else JSON lines.
 * What else a repository has in .txt is not its data.
 * @throws {RangeError} If there are none.
 */
export function textFilesOf(
  { repo, folder }: HubAddress,
  { files }: HubListing,
): HubFile[] {
  const inside = files.filter(({ path }) =>
    folder === "" || path === folder || path.startsWith(`${folder}/`)
  );
  const parquet = inside.filter(({ path }) => path.endsWith(".parquet"));
  const lines = inside.filter(({ path }) =>
    isTextFile(path) && !/\.txt(\.\w+)?$/i.test(path)
  );
  const chosen = parquet.length > 0 ? parquet : lines;
  if (chosen.length > 0) {
    return chosen.toSorted((a, b) => a.path < b.path ? -1 : 1);
  }
  throw new RangeError(
    `Cannot read text of dataset "${repo.id}": expected parquet files or JSON lines${
      folder === "" ? "" : ` in "${folder}"`
    }: got none of ${files.length} files: name another folder, or another revision such as @refs/convert/parquet`,
  );
}

/** The first of some files that the cache does not have, or has in part only; undefined where it has them all. */
export async function firstNotCached(
  files: readonly HubFile[],
  snapshot: Folder | undefined,
): Promise<HubFile | undefined> {
  for (const file of files) {
    if (!await cached(file, snapshot)) return file;
  }
  return undefined;
}

/** Opens the text of a dataset as a folder. Files are called `owner/name@commit/file`, wherever they lie. */
export function hubDataset(options: HubDatasetOptions): Folder {
  const { address, listing, snapshot } = options;
  const name = formatHubAddress(address);
  const files = new Map(
    textFilesOf(address, listing).map((file) => [file.path, file]),
  );
  return {
    name,
    has: (file) => Promise.resolve(files.has(file)),
    list: () => Promise.resolve([...files.keys()]),
    async open(path): Promise<Source> {
      const file = files.get(path);
      if (!file) throw missingFile(name, path);
      const called = `${address.repo.id}@${listing.commit}/${path}`;
      const local = await cached(file, snapshot);
      return local
        ? { ...local, name: called }
        : hubSource(called, file, options);
    },
  };
}

async function cached(
  { path, size }: HubFile,
  snapshot: Folder | undefined,
): Promise<Source | undefined> {
  if (!await snapshot?.has(path)) return undefined;
  const source = await snapshot!.open(path);
  return source.byteLength === size ? source : undefined;
}

/** A file of the hub; reads go on where a connection broke. */
function hubSource(
  name: string,
  file: HubFile,
  { address: { repo }, listing: { commit }, reading }: HubDatasetOptions,
): Source {
  const { client, retries, signal } = reading;
  const byteLength = file.size;
  return {
    name,
    byteLength,
    isRemote: true,
    async read(start, end): Promise<Uint8Array<ArrayBuffer>> {
      checkRange(name, byteLength, start, end);
      const bytes = new Uint8Array(end - start);
      let filled = 0;
      const fetchRest = async (): Promise<void> => {
        if (filled === bytes.length) return;
        const range = { start: start + filled, end };
        const part = { repo, commit, file, range, mayAskForPart: true, signal };
        for await (const chunk of client.read(part)) {
          bytes.set(chunk, filled);
          filled += chunk.length;
        }
        if (filled === bytes.length) return;
        const message = `expected ${end - start} bytes: got ${filled}`;
        throw new RequestError(message, { mayPass: true });
      };
      try {
        await withRetries(retries, signal, fetchRest, () => filled);
        return bytes;
      } catch (cause) {
        if (cause instanceof RangesIgnored) {
          throw new Error(
            `Cannot read "${name}": expected a server that sends ranges: got the whole file: download the dataset first`,
            { cause },
          );
        }
        if (!(cause instanceof RequestError)) throw cause;
        throw new Error(`Cannot read "${name}": ${cause.message}`, { cause });
      }
    },
  };
}
