/**
 * Folders of this machine that are written, and locks on files of it.
 * @module
 */
import { dirname, join } from "node:path";
import { directory, told, writeAtomic } from "../core/files.ts";
import { checkFileName, type Folder, missingFile } from "../core/source.ts";
import type { Store } from "../core/store.ts";

/**
 * A folder of this machine that is written; the first write or lock creates it.
 *
 * Its locks are the kernel's (`flock`), so they end with their process, however it ends. On NFS
 * they hold between machines where the mount has locks, as it has unless told otherwise.
 * @throws {Error} If the path is a file.
 */
export async function localStore(path: string): Promise<Store> {
  if (await kindOf(path) === "file") {
    throw new Error(
      `Cannot write to "${path}": expected a folder: got a file: choose another folder`,
    );
  }
  const folder = async (): Promise<Folder | undefined> =>
    await kindOf(path) === "folder" ? directory(path) : undefined;
  const pathOf = (file: string): string => {
    checkFileName(path, file);
    return join(path, file);
  };
  return {
    name: path,
    has: async (file) => await (await folder())?.has(file) ?? false,
    async open(file) {
      const opened = await folder();
      if (!opened) throw missingFile(path, file);
      return await opened.open(file);
    },
    list: async (options) => await (await folder())?.list(options) ?? [],
    async write(file, content) {
      const target = pathOf(file);
      await makeFolder(dirname(target));
      return await writeAtomic(target, content);
    },
    async remove(file): Promise<void> {
      const target = pathOf(file);
      await told("remove", target, () => removeIfThere(target));
    },
    async lock(name): Promise<AsyncDisposable> {
      const target = pathOf(`.${name}.lock`);
      await makeFolder(path);
      const lock = await tryLockFile(target);
      if (lock) return lock;
      throw new Error(
        `Cannot write to "${path}": ${await ownerOf(
          target,
        )} is writing there: wait for it to end, or choose another folder`,
      );
    },
  };
}

/** Creates a folder, and those that it is in. */
export async function makeFolder(path: string): Promise<void> {
  await told(
    "create folder",
    path,
    () => Deno.mkdir(path, { recursive: true }),
  );
}

/**
 * Takes a file as a lock of this process, without waiting. It is given back when it is disposed
 * of, which removes the file, or when the process ends in any way, which leaves a file without a lock.
 * @returns undefined if another has it, in this process or elsewhere.
 * @throws {Error} If the file cannot be made, or the file system has no locks.
 */
export async function tryLockFile(
  path: string,
): Promise<AsyncDisposable | undefined> {
  while (true) {
    using owned = new DisposableStack();
    const file = owned.use(
      await told(
        "write",
        path,
        () => Deno.open(path, { read: true, write: true, create: true }),
      ),
    );
    if (!await told("lock", path, () => file.tryLock(true))) return undefined;
    // Whoever had it may have removed it between opening and locking.
    if (!await isAt(file, path)) continue;
    await told("write", path, async () => {
      await file.truncate(0);
      await file.write(new TextEncoder().encode(JSON.stringify(thisProcess())));
    });
    owned.move();
    return {
      async [Symbol.asyncDispose](): Promise<void> {
        // Before it is unlocked: later it may be another's.
        await removeIfThere(path).catch(() => {});
        file.close();
      },
    };
  }
}

/** Whether a path still leads to the file that is open. */
async function isAt(file: Deno.FsFile, path: string): Promise<boolean> {
  try {
    const [opened, there] = [await file.stat(), await Deno.stat(path)];
    return opened.ino === there.ino && opened.dev === there.dev;
  } catch {
    return false; // removed
  }
}

/** Who writes here, as a lock has it. */
interface LockOwner {
  readonly pid: number;
  /** Undefined where it must not be asked for. */
  readonly host?: string;
}

/** What a lock says of this process. */
export function thisProcess(): LockOwner {
  const asked = Deno.permissions.querySync({ name: "sys", kind: "hostname" });
  return asked.state === "granted"
    ? { pid: Deno.pid, host: Deno.hostname() }
    : { pid: Deno.pid };
}

/** Says whose a lock is, from its content. */
export function describeOwner(text: string): string {
  try {
    const { pid, host } = JSON.parse(text);
    const on = typeof host === "string" ? ` on ${host}` : "";
    if (Number.isSafeInteger(pid)) return `process ${pid}${on}`;
  } catch {
    // It is being written, or this system lets nobody read a locked file.
  }
  return "another process";
}

async function ownerOf(path: string): Promise<string> {
  return describeOwner(await Deno.readTextFile(path).catch(() => ""));
}

async function removeIfThere(path: string): Promise<void> {
  try {
    await Deno.remove(path);
  } catch (cause) {
    if (!isMissing(cause)) throw cause;
  }
}

/** What is at a path; undefined where there is nothing. */
async function kindOf(path: string): Promise<"file" | "folder" | undefined> {
  try {
    return (await Deno.stat(path)).isDirectory ? "folder" : "file";
  } catch (cause) {
    if (isMissing(cause)) return undefined;
    return await told("read", path, () => Promise.reject(cause));
  }
}

function isMissing(cause: unknown): boolean {
  return cause instanceof Deno.errors.NotFound ||
    cause instanceof Deno.errors.NotADirectory;
}
