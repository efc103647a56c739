/**
 * A download from a hub on this machine into memory, with what it takes to watch it.
 * @module
 */
import { deepEqual, equal } from "node:assert/strict";
import { HubClient } from "../../core/hub_client.ts";
import {
  downloadFiles,
  type DownloadOptions,
  type FilePart,
  type HubStore,
  type PartWriter,
} from "../../core/hub_download.ts";
import type { HubFile, HubListing } from "../../core/hub_files.ts";
import type { ByteRange } from "../../core/hub_ranges.ts";
import { FakeHub, gitSha1, hashOf, noise, sha256 } from "./hub_server.ts";

export const REPO = { type: "model", id: "owner/name" } as const;
export const COMMIT = "c".repeat(40);
/** Bytes of one request. */
export const RANGE = 30_000;
/** Bytes of the file where there is only one. */
export const LARGE_FILE = 100_001;

/** Keeps files in memory, and what a killed process would find of parts. */
export class MemoryStore implements HubStore {
  readonly files = new Map<string, Uint8Array>();
  readonly parts = new Map<string, MemoryPart>();
  /** Called before each write; may throw. */
  onWrite: (at: number) => void = () => {};

  has(file: HubFile): Promise<boolean> {
    return Promise.resolve(this.files.get(file.hash)?.length === file.size);
  }

  openPart(file: HubFile): Promise<FilePart> {
    const part = this.parts.get(file.hash) ?? new MemoryPart(this, file);
    this.parts.set(file.hash, part);
    return Promise.resolve(part);
  }
}

class MemoryPart implements FilePart {
  done: ByteRange[] = [];
  readonly #store: MemoryStore;
  readonly #file: HubFile;
  #bytes: Uint8Array<ArrayBuffer>;
  #nOpen = 0;
  #nUnsynced = 0;

  constructor(store: MemoryStore, file: HubFile) {
    this.#store = store;
    this.#file = file;
    this.#bytes = new Uint8Array(file.size).fill(0xee);
  }

  openAt(position: number): Promise<PartWriter> {
    let at = position;
    this.#nOpen++;
    return Promise.resolve({
      write: (bytes): Promise<void> => {
        this.#store.onWrite(at);
        this.#bytes.set(bytes, at); // throws past the end
        at += bytes.length;
        this.#nUnsynced++;
        return Promise.resolve();
      },
      sync: (): Promise<void> => {
        this.#nUnsynced = 0;
        return Promise.resolve();
      },
      close: () => void this.#nOpen--,
    });
  }

  record(range: ByteRange): Promise<void> {
    equal(this.#nUnsynced, 0, "recorded before it was on the disk");
    this.done.push(range);
    return Promise.resolve();
  }

  hash(): Promise<string> {
    equal(this.#nOpen, 0);
    const isSha256 = this.#file.hash.length === 64;
    return Promise.resolve((isSha256 ? sha256 : gitSha1)(this.#bytes));
  }

  keep(): Promise<void> {
    this.#store.files.set(this.#file.hash, this.#bytes);
    this.#store.parts.delete(this.#file.hash);
    return Promise.resolve();
  }

  discard(): Promise<void> {
    this.done = [];
    this.#bytes.fill(0xee);
    return Promise.resolve();
  }
}

/** A hub with one repository, and a place for its files. */
export class Scene implements AsyncDisposable {
  readonly hub = new FakeHub();
  readonly store = new MemoryStore();
  readonly files: Record<string, Uint8Array<ArrayBuffer>>;
  readonly waits: number[] = [];
  /** The last progress. */
  nBytes = 0;

  constructor(
    files: Record<string, Uint8Array<ArrayBuffer>> = {
      "model.safetensors": noise(LARGE_FILE),
    },
  ) {
    this.files = files;
    this.hub.repos["models/owner/name"] = { commit: COMMIT, files };
  }

  client(token?: string): HubClient {
    const { endpoint } = this.hub;
    return new HubClient({ endpoint, token, stallMs: 150 });
  }

  async download(options: Partial<DownloadOptions> = {}): Promise<void> {
    const { signal } = new AbortController();
    const client = this.client();
    const listing: HubListing = await client.list(REPO, "main", signal);
    this.hub.asked.length = 0;
    await downloadFiles(client, REPO, listing, this.store, {
      nConnections: 1,
      rangeBytes: RANGE,
      retries: {
        nAttempts: 4,
        random: () => 0,
        sleep: (ms) => {
          this.waits.push(ms);
          return Promise.resolve();
        },
      },
      signal,
      onProgress: (nBytes) => this.nBytes = nBytes,
      ...options,
    });
  }

  /** Throws unless every file is there, whole and right. */
  check(): void {
    let total = 0;
    const wanted = Object.values(this.files).map((bytes) => {
      const hash = hashOf(bytes);
      deepEqual(this.store.files.get(hash), bytes);
      return [hash, bytes.length] as const;
    });
    for (const size of new Map(wanted).values()) total += size;
    equal(this.nBytes, total);
    equal(this.store.parts.size, 0);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.hub[Symbol.asyncDispose]();
  }
}
