/**
 * The Hugging Face cache on this machine's disk: parts that grow, whole files under the name of
 * what they hold, and snapshots that link to them. Nothing is under its last name before it is whole.
 * @module
 */
import { createHash, type Hash } from "node:crypto";
import { statfs } from "node:fs/promises";
import { dirname, join } from "node:path";
import {
  blobLink,
  type HubRepo,
  isCommit,
  notesFolder,
  refPath,
  repoFolder,
  snapshotPath,
} from "../core/hub_cache.ts";
import type { FilePart, HubStore, PartWriter } from "../core/hub_download.ts";
import type { HubFile, HubNote } from "../core/hub_files.ts";
import {
  type ByteRange,
  countBytes,
  formatRange,
  parseRanges,
} from "../core/hub_ranges.ts";
import { told, writeAtomic } from "../core/files.ts";
import { makeFolder, tryLockFile } from "./local_store.ts";

const HASH_CHUNK_BYTES = 2 ** 20;
const LOCK_POLL_MS = 200;

/** One commit of a repository in the cache. */
export class CacheStore implements HubStore {
  readonly #cache: string;
  readonly #repo: HubRepo;
  readonly #commit: string;

  constructor(cache: string, repo: HubRepo, commit: string) {
    this.#cache = cache;
    this.#repo = repo;
    this.#commit = commit;
  }

  /** The folder with the commit's files. */
  get snapshot(): string {
    return join(this.#cache, snapshotPath(this.#repo, this.#commit));
  }

  /** Whether all of a file is there, as a blob, or in the snapshot itself where nothing can be linked. */
  has(file: HubFile): Promise<boolean> {
    const places = [this.#blob(file), join(this.snapshot, file.path)];
    return Promise.resolve(
      places.some((path) => sizeOf(path) === file.size),
    );
  }

  /** Bytes of a file that are yet to be written to the disk. */
  async missingBytes(file: HubFile): Promise<number> {
    if (await this.has(file)) return 0;
    return file.size - countBytes(await DiskPart.done(this.#blob(file), file));
  }

  /** The part of a file that an earlier download has left. */
  async openPart(file: HubFile): Promise<FilePart> {
    const blob = this.#blob(file);
    await makeFolder(dirname(blob));
    return await DiskPart.open(blob, file);
  }

  /** Notes what the repository has, and what of it is wanted. */
  async writeNote(note: HubNote): Promise<void> {
    const folder = join(this.#cache, notesFolder(this.#repo));
    await makeFolder(folder);
    // Without it Python takes the repository for damaged.
    await makeFolder(dirname(this.snapshot));
    const path = join(folder, `${note.commit}.json`);
    await writeAtomic(path, JSON.stringify(note, null, 1) + "\n");
  }

  /** Makes the snapshot of files that are all there. */
  async link(files: readonly HubFile[]): Promise<void> {
    await makeFolder(this.snapshot);
    for (const [i, file] of files.entries()) {
      const isLastUse = !files.slice(i + 1).some(({ hash }) =>
        hash === file.hash
      );
      await this.#linkFile(file, isLastUse);
      await DiskPart.remove(this.#blob(file), file);
    }
  }

  async #linkFile(file: HubFile, isLastUse: boolean): Promise<void> {
    const path = join(this.snapshot, file.path);
    const blob = this.#blob(file);
    const target = blobLink(file.path, file.hash);
    const there = lstat(path);
    const hasBlob = sizeOf(blob) === file.size;
    if (!hasBlob && there?.isFile && there.size === file.size) return;
    if (there?.isSymlink && readLink(path) === target) return;
    await makeFolder(dirname(path));
    await told("write", path, async () => {
      if (there) await Deno.remove(path);
      try {
        await Deno.symlink(target, path, { type: "file" });
      } catch {
        // Windows without the right to link: the file itself takes the place, as Python has it.
        if (isLastUse) await Deno.rename(blob, path);
        else await Deno.copyFile(blob, path);
      }
    });
  }

  /** Notes that a branch or tag stands for the commit. The last thing to do. */
  async writeRef(revision: string): Promise<void> {
    if (isCommit(revision)) return;
    const path = join(this.#cache, refPath(this.#repo, revision));
    try {
      if (await Deno.readTextFile(path) === this.#commit) return;
    } catch {
      // There is none yet, or it is written anew.
    }
    // Not beside it, where a file of a killed write would be taken for a branch.
    const aside = join(this.#cache, notesFolder(this.#repo), "ref");
    await writeAtomic(aside, this.#commit);
    await makeFolder(dirname(path));
    await told("write", path, () => Deno.rename(aside, path));
  }

  #blob(file: HubFile): string {
    return join(this.#cache, repoFolder(this.#repo), "blobs", file.hash);
  }
}

/**
 * A file that is not whole yet: its bytes, with holes, and a log of the ranges that are on the disk.
 * Their names end in `.incomplete`, which Python's tools clean up; they are not
 * the `HASH.incomplete` that versions of it go on writing at the end of.
 */
class DiskPart implements FilePart {
  readonly #blob: string;
  readonly #data: string;
  readonly #log: string;
  readonly #file: HubFile;
  #done: ByteRange[];

  private constructor(blob: string, file: HubFile, done: ByteRange[]) {
    this.#blob = blob;
    this.#data = `${blob}.ocs.incomplete`;
    this.#log = `${blob}.ranges.incomplete`;
    this.#file = file;
    this.#done = done;
  }

  static async open(blob: string, file: HubFile): Promise<DiskPart> {
    const done = await DiskPart.done(blob, file);
    const part = new DiskPart(blob, file, done);
    await told("write", part.#data, async () => {
      (await Deno.open(part.#data, { write: true, create: true })).close();
    });
    if (done.length === 0) await part.discard(); // a log that is not believed
    return part;
  }

  /** The ranges of a file that are on the disk. */
  static async done(blob: string, file: HubFile): Promise<ByteRange[]> {
    const part = new DiskPart(blob, file, []);
    const log = await Deno.readTextFile(part.#log).catch(() => "");
    const done = parseRanges(log, file.size);
    const isHeld = (done.at(-1)?.end ?? 0) <= (sizeOf(part.#data) ?? 0);
    return isHeld ? done : [];
  }

  /** Removes a part that is needed no longer, as where Python was faster. */
  static async remove(blob: string, file: HubFile): Promise<void> {
    const part = new DiskPart(blob, file, []);
    for (const path of [part.#data, part.#log]) {
      await Deno.remove(path).catch(() => {}); // there is none, as a rule
    }
  }

  get done(): readonly ByteRange[] {
    return this.#done;
  }

  async openAt(position: number): Promise<PartWriter> {
    const path = this.#data;
    const file = await told(
      "write",
      path,
      () => Deno.open(path, { write: true }),
    );
    file.seekSync(position, Deno.SeekMode.Start);
    return {
      write: (bytes) => told("write", path, () => writeAll(file, bytes)),
      sync: () => told("write", path, () => file.syncData()),
      close: () => file.close(),
    };
  }

  async record(range: ByteRange): Promise<void> {
    const line = new TextEncoder().encode(formatRange(range));
    await told("write", this.#log, async () => {
      using log = await Deno.open(this.#log, { append: true, create: true });
      await writeAll(log, line);
      await log.syncData();
    });
    this.#done.push(range);
  }

  async hash(): Promise<string> {
    const { size, hash } = this.#file;
    const isSha256 = hash.length === 64;
    const hasher = createHash(isSha256 ? "sha256" : "sha1");
    if (!isSha256) hasher.update(`blob ${size}\0`); // as Git names what it holds
    await told("read", this.#data, () => hashFile(this.#data, hasher));
    return hasher.digest("hex");
  }

  async keep(): Promise<void> {
    await told("write", this.#blob, () => Deno.rename(this.#data, this.#blob));
    await Deno.remove(this.#log).catch(() => {}); // an empty file has none
  }

  async discard(): Promise<void> {
    await Deno.remove(this.#log).catch(() => {});
    await told("write", this.#data, () => Deno.truncate(this.#data));
    this.#done = [];
  }
}

async function writeAll(file: Deno.FsFile, bytes: Uint8Array): Promise<void> {
  for (let written = 0; written < bytes.length;) {
    written += await file.write(bytes.subarray(written));
  }
}

async function hashFile(path: string, hasher: Hash): Promise<void> {
  using file = await Deno.open(path);
  const buffer = new Uint8Array(HASH_CHUNK_BYTES);
  for (let n; (n = await file.read(buffer)) !== null;) {
    hasher.update(buffer.subarray(0, n));
  }
}

function lstat(path: string): Deno.FileInfo | undefined {
  try {
    return Deno.lstatSync(path);
  } catch {
    return undefined; // nothing there, or what is done with it says what is wrong
  }
}

function readLink(path: string): string | undefined {
  try {
    return Deno.readLinkSync(path).replaceAll("\\", "/");
  } catch {
    return undefined; // made anew
  }
}

/** Length of a file, or of what a link leads to; undefined where there is none. */
function sizeOf(path: string): number | undefined {
  try {
    const { isFile, size } = Deno.statSync(path);
    return isFile ? size : undefined;
  } catch {
    return undefined;
  }
}

/** Bytes that are free where a folder is, or will be; undefined where the system does not tell. */
export async function freeBytes(path: string): Promise<number | undefined> {
  for (let at = path;; at = dirname(at)) {
    try {
      const { bavail, bsize } = await statfs(at);
      return Number(bavail) * Number(bsize);
    } catch {
      if (dirname(at) === at) return undefined;
    }
  }
}

/**
 * Keeps other processes from downloading the same repository, until it is disposed of or the process ends.
 * @param onWait Called once if another process has it.
 * @throws {Error} If the lock cannot be made, or the signal's reason when it is aborted.
 */
export async function lockRepo(
  cache: string,
  repo: HubRepo,
  signal: AbortSignal,
  onWait: () => void,
): Promise<AsyncDisposable> {
  const path = join(cache, ".locks", repoFolder(repo), "ocs.lock");
  await makeFolder(dirname(path));
  for (let n = 0;; n++) {
    const lock = await tryLockFile(path);
    if (lock) return lock;
    signal.throwIfAborted();
    if (n === 0) onWait();
    await new Promise((resolve) => setTimeout(resolve, LOCK_POLL_MS));
  }
}
