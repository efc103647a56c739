/**
 * Locks in an object store: an object that only one process can create, and that it renews.
 * @module
 */
import { readXml } from "../core/s3_answer.ts";
import type { S3Client } from "../core/s3_client.ts";
import { describeOwner, thisProcess } from "./local_store.ts";
import { type PutAnswer, putObject } from "./s3_upload.ts";

/** A lock is renewed this often. */
const RENEW_MS = 15_000;
/** A lock that was not renewed for this long is another's to take. */
const LEASE_MS = 60_000;
const POLL_MS = 5_000;
/** A lock can be given back or taken while it is asked for, but hardly this often. */
const MAX_TRIES = 20;

/** What else a lock is given. */
export interface S3LockOptions {
  /** What errors call the folder. */
  readonly folder: string;
  /** Called once where a lock is there, before it is watched: whose it is. */
  readonly onWait: (owner: string) => void;
  /** Called if another takes the lock, or it could not be renewed: then nothing more may be written. */
  readonly onLost: (error: Error) => void;
}

/**
 * Takes a lock: an object with the process and the host, which is renewed every 15 s. Where there
 * is one, it is watched: if it is renewed, its process lives, and this is refused; after 60 s
 * without that it is taken. The server must honor conditional writes, or it is refused.
 * A process that was stopped for a minute, such as a computer that slept, may lose its lock, and
 * learns of it when it renews it next.
 */
export async function lockS3(
  client: S3Client,
  key: string,
  options: S3LockOptions,
): Promise<AsyncDisposable> {
  const lock = new S3Lock(client, key, options);
  await lock.take();
  return lock;
}

interface LockObject {
  readonly text: string;
  readonly etag: string;
}

class S3Lock implements AsyncDisposable {
  readonly #client: S3Client;
  readonly #key: string;
  readonly #options: S3LockOptions;
  readonly #id = crypto.randomUUID();
  #nRenewals = 0;
  #etag = "";
  #isHeld = false;
  #stopTimer = (): void => {};
  #renewing: Promise<void> = Promise.resolve();

  constructor(client: S3Client, key: string, options: S3LockOptions) {
    this.#client = client;
    this.#key = key;
    this.#options = options;
  }

  async take(): Promise<void> {
    for (let n = 0; !await this.#tryToTake(); n++) {
      if (n < MAX_TRIES) continue;
      throw new Error(
        `Cannot lock "${
          this.#client.nameOf(this.#key)
        }": expected it to be free or held: got a server that says neither`,
      );
    }
    await this.#checkServer();
    this.#isHeld = true;
    this.#schedule();
  }

  async #tryToTake(): Promise<boolean> {
    if (await this.#put({ "if-none-match": "*" })) return true;
    const there = await this.#read();
    if (!there) return false; // it was just given back
    return await this.#watch(there) && await this.#put({
      "if-match": there.etag,
    });
  }

  /** Watches a lock; refuses if it is renewed. @returns Whether nobody renewed it; false if it is gone. */
  async #watch(there: LockObject): Promise<boolean> {
    const owner = describeOwner(there.text);
    const { folder, onWait } = this.#options;
    onWait(owner);
    const never = new AbortController().signal;
    for (let waited = 0; waited < LEASE_MS; waited += POLL_MS) {
      await this.#client.timing.sleep(POLL_MS, never);
      const now = await this.#read();
      if (!now) return false;
      if (now.etag === there.etag) continue;
      throw new Error(
        `Cannot write to "${folder}": ${
          describeOwner(now.text)
        } is writing there: wait for it to end, or choose another folder`,
      );
    }
    return true;
  }

  /** Writes the lock on a condition. @returns Whether it is this process's then. */
  async #put(condition: Record<string, string>): Promise<boolean> {
    const answer = await this.#tryPut(condition);
    if (answer.etag !== undefined && answer.status < 300) {
      this.#etag = answer.etag;
      return true;
    }
    // An attempt before may have done it, and its answer was lost.
    const there = await this.#read();
    if (there?.text.includes(this.#id) !== true) return false;
    this.#etag = there.etag;
    return true;
  }

  async #tryPut(condition: Record<string, string>): Promise<PutAnswer> {
    // Every renewal has another content, and so another ETag.
    const owner = { ...thisProcess(), id: this.#id, n: this.#nRenewals++ };
    return await putObject(this.#client, {
      verb: "lock",
      method: "PUT",
      key: this.#key,
      headers: () => condition,
      body: JSON.stringify(owner),
      // 409: another write of the same object is under way.
      answers: [404, 409, 412],
    });
  }

  /** A lock is none at a server that takes every write, or lets two take over what a third has left. */
  async #checkServer(): Promise<void> {
    for (
      const [header, value] of [
        ["If-None-Match", "*"],
        ["If-Match", `"${"0".repeat(32)}"`],
      ] as const
    ) {
      const { status } = await this.#tryPut({ [header]: value });
      if (status >= 300) continue;
      await this.#remove();
      throw new Error(
        `Cannot lock "${
          this.#client.nameOf(this.#key)
        }": expected a server that honors ${header}: got one that writes over what is there: write to another server, or to a folder`,
      );
    }
  }

  #schedule(): void {
    const { timing } = this.#client;
    this.#stopTimer = timing.after(RENEW_MS, () => {
      this.#renewing = this.#renew();
    });
  }

  async #renew(): Promise<void> {
    const { folder, onLost } = this.#options;
    try {
      if (await this.#put({ "if-match": this.#etag })) {
        if (this.#isHeld) this.#schedule();
        return;
      }
      throw new Error("another process has taken it");
    } catch (cause) {
      this.#isHeld = false;
      const reason = cause instanceof Error ? cause.message : String(cause);
      onLost(
        new Error(
          `Cannot write to "${folder}": its lock was lost: ${reason}: run the same command again`,
          { cause },
        ),
      );
    }
  }

  async #read(): Promise<LockObject | undefined> {
    const request = {
      verb: "lock",
      method: "GET",
      key: this.#key,
      answers: [404],
    } as const;
    const name = this.#client.nameOf(this.#key);
    return await this.#client.send(request, async (response, progress) => {
      if (response.status === 404) return undefined;
      const text = await readXml(name, response, progress);
      return { text, etag: response.headers.get("etag") ?? "" };
    });
  }

  async #remove(): Promise<void> {
    await this.#client.send(
      { verb: "unlock", method: "DELETE", key: this.#key, answers: [404] },
      () => Promise.resolve(),
    );
  }

  /** Gives it back; where that fails it ends by itself. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopTimer();
    const wasHeld = this.#isHeld;
    this.#isHeld = false;
    await this.#renewing;
    if (!wasHeld) return;
    try {
      const there = await this.#read();
      if (there?.text.includes(this.#id)) await this.#remove();
    } catch {
      // It ends by itself when nobody renews it.
    }
  }
}
