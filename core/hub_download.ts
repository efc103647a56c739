/**
 * Downloads files of the hub: several connections, each with a range of a file, so that what
 * arrived stays when something breaks. Where the bytes go is the store's affair.
 * @module
 */
import { type HubClient, RangesIgnored } from "./hub_client.ts";
import type { HubRepo } from "./hub_cache.ts";
import type { HubFile, HubListing } from "./hub_files.ts";
import { type ByteRange, countBytes, missingRanges } from "./hub_ranges.ts";
import { RequestError, type RetryPolicy, withRetries } from "./retry.ts";

/** Where files are kept by what they hold. */
export interface HubStore {
  /** Whether all of a file is there. */
  has(file: HubFile): Promise<boolean>;
  /** The part of a file that an earlier download has left; an empty one where there was none. */
  openPart(file: HubFile): Promise<FilePart>;
}

/** A file that is not whole yet. */
export interface FilePart {
  /** The bytes that are on the disk. */
  readonly done: readonly ByteRange[];
  /** Opens the part for writing from a position on; several may be open at once. */
  openAt(position: number): Promise<PartWriter>;
  /** Notes, where a killed process does not lose it, that a range is on the disk. */
  record(range: ByteRange): Promise<void>;
  /** The hash of what is there, made as the file's own was. */
  hash(): Promise<string>;
  /** Makes it the file. */
  keep(): Promise<void>;
  /** Throws all of it away, so that nothing is done. */
  discard(): Promise<void>;
}

/** Writes one run of bytes after another. */
export interface PartWriter {
  write(bytes: Uint8Array): Promise<void>;
  /** Returns when what was written is on the disk. */
  sync(): Promise<void>;
  close(): void;
}

/** How to download. */
export interface DownloadOptions {
  /** Requests that are under way at once. */
  readonly nConnections: number;
  /** Bytes of one request. */
  readonly rangeBytes: number;
  readonly retries: RetryPolicy;
  readonly signal: AbortSignal;
  /** Called with the bytes that are there, of all files together. */
  onProgress?(nBytes: number): void;
}

/**
 * Downloads the files that the store does not have. When it fails or is aborted, what has arrived is
 * recorded, and the next call goes on from there.
 * @throws {Error} If a file cannot be had, or what arrives is not what the hub promised: names it.
 */
export async function downloadFiles(
  client: HubClient,
  repo: HubRepo,
  { commit, files }: HubListing,
  store: HubStore,
  options: DownloadOptions,
): Promise<void> {
  const controller = new AbortController();
  const signal = AbortSignal.any([options.signal, controller.signal]);
  let nBytes = 0;
  const all: AllFiles = {
    ...{ client, repo, commit, store, signal },
    retries: options.retries,
    rangeBytes: options.rangeBytes,
    slots: new Slots(options.nConnections),
    count(n): void {
      nBytes += n;
      options.onProgress?.(nBytes);
    },
    fail: (error) => controller.abort(error),
  };
  // Files of the same contents are one blob.
  const byHash = new Map(files.map((file) => [file.hash, file]));
  await Promise.allSettled(
    byHash.values().map((file) => new FileDownload(file, all).run()),
  );
  signal.throwIfAborted();
}

/** What the files on their way share. */
interface AllFiles {
  readonly client: HubClient;
  readonly repo: HubRepo;
  readonly commit: string;
  readonly store: HubStore;
  readonly signal: AbortSignal;
  readonly retries: RetryPolicy;
  readonly rangeBytes: number;
  readonly slots: Slots;
  /** Counts bytes that are there, or no longer. */
  count(nBytes: number): void;
  /** Ends the whole download; what is under way is recorded. */
  fail(error: unknown): void;
}

/** One file on its way. */
class FileDownload {
  readonly #file: HubFile;
  readonly #all: AllFiles;
  #nBytes = 0;
  #mayAskForParts = true;

  constructor(file: HubFile, all: AllFiles) {
    this.#file = file;
    this.#all = all;
  }

  /** Brings the file into the store; a failure ends the whole download. */
  async run(): Promise<void> {
    const { store, fail } = this.#all;
    try {
      if (await store.has(this.#file)) this.#count(this.#file.size);
      else await this.#download(await store.openPart(this.#file));
    } catch (error) {
      fail(error);
    }
  }

  /** Fetches what is missing, and checks it; once more from the start if it is not what it should be. */
  async #download(part: FilePart): Promise<void> {
    const { hash } = this.#file;
    let got = "";
    for (let attempt = 0; attempt < 2; attempt++) {
      this.#count(countBytes(part.done));
      await this.#fetchMissing(part);
      got = await this.#all.slots.run(() => part.hash());
      if (got === hash) return await part.keep();
      await this.#discard(part);
    }
    throw this.#error(
      `expected contents of hash ${hash}: got ${got} at the second attempt too: try again later`,
    );
  }

  /** Fetches what is missing; in one stream if the server knows no ranges. */
  async #fetchMissing(part: FilePart): Promise<void> {
    const { size } = this.#file;
    const { rangeBytes, signal } = this.#all;
    if (this.#mayAskForParts) {
      await Promise.all(
        missingRanges(size, part.done, rangeBytes).map((range) =>
          this.#fetchInTurn(part, range)
        ),
      );
      signal.throwIfAborted();
      if (this.#mayAskForParts) return;
      await this.#discard(part);
    }
    await this.#fetchInTurn(part, { start: 0, end: size });
    signal.throwIfAborted();
  }

  /** Fetches a range when a connection is free; a failure ends the whole download. */
  async #fetchInTurn(part: FilePart, range: ByteRange): Promise<void> {
    const mayAskForPart = this.#mayAskForParts;
    await this.#all.slots.run(async () => {
      if (this.#all.signal.aborted) return;
      if (mayAskForPart !== this.#mayAskForParts) return; // another range has found out
      try {
        await this.#fetchRange(part, range, mayAskForPart);
      } catch (error) {
        if (error instanceof RangesIgnored) this.#mayAskForParts = false;
        else this.#all.fail(error);
      }
    });
  }

  async #fetchRange(
    part: FilePart,
    { start, end }: ByteRange,
    mayAskForPart: boolean,
  ): Promise<void> {
    const { client, repo, commit, signal, retries } = this.#all;
    const file = this.#file;
    const writer = await part.openAt(start);
    let at = start;
    const attempt = async (): Promise<void> => {
      const range = { start: at, end };
      const options = { repo, commit, file, range, mayAskForPart, signal };
      for await (const chunk of client.read(options)) {
        await writer.write(chunk);
        at += chunk.length;
        this.#count(chunk.length);
      }
      if (at === end) return;
      const message = `the connection ended at byte ${at} of ${file.size}`;
      throw new RequestError(message, { mayPass: true });
    };
    const record = async (): Promise<void> => {
      if (at === start) return;
      await writer.sync();
      await part.record({ start, end: at });
    };
    try {
      await withRetries(retries, signal, attempt, () => at);
      await record();
    } catch (error) {
      await record().catch(() => {}); // the first error is the one to tell
      throw error instanceof RequestError ? this.#told(error) : error;
    } finally {
      writer.close();
    }
  }

  async #discard(part: FilePart): Promise<void> {
    await part.discard();
    this.#count(-this.#nBytes);
  }

  #count(nBytes: number): void {
    this.#nBytes += nBytes;
    this.#all.count(nBytes);
  }

  #told(error: RequestError): Error {
    const advice = error.mayPass
      ? ": run the same command again, which goes on where it stopped"
      : "";
    return this.#error(`${error.message}${advice}`, error);
  }

  #error(reason: string, cause?: unknown): Error {
    const { id } = this.#all.repo;
    const message =
      `Cannot download "${this.#file.path}" of "${id}": ${reason}`;
    return new Error(message, { cause });
  }
}

/** Lets so many actions run at once, in the order in which they came. */
class Slots {
  #free: number;
  readonly #waiting: (() => void)[] = [];

  constructor(n: number) {
    this.#free = n;
  }

  async run<T>(action: () => Promise<T>): Promise<T> {
    if (this.#free > 0) this.#free--;
    else await new Promise<void>((resolve) => this.#waiting.push(resolve));
    try {
      return await action();
    } finally {
      const next = this.#waiting.shift();
      if (next) next();
      else this.#free++;
    }
  }
}
