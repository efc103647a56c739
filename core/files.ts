/**
 * The files of this machine, through Deno: the edge where a path becomes a
 * `Source` or a `Folder`, and where everything is written.
 * @module
 */
import { createHash } from "node:crypto";
import { basename, dirname, join } from "node:path";
import {
  checkFileName,
  checkRange,
  type Folder,
  missingFile,
  readJson,
  type Source,
} from "./source.ts";
import type { WrittenFile } from "./store.ts";

/** Bytes that are written and hashed at a time, so that others get a turn. */
const PIECE_BYTES = 4 * 2 ** 20;

/**
 * Opens a file for ranged reads; dispose it when done.
 * @throws {Error} If there is no such file, or it is a folder.
 */
export async function fileSource(path: string): Promise<Source & Disposable> {
  const file = await told("open", path, () => Deno.open(path));
  const { isFile, size } = await file.stat();
  if (!isFile) {
    file.close();
    throw new Error(`Cannot open "${path}": expected a file: got a folder`);
  }
  // Reads share one file position, so they take turns.
  let turn: Promise<unknown> = Promise.resolve();
  return {
    name: path,
    byteLength: size,
    read(start, end): Promise<Uint8Array<ArrayBuffer>> {
      const read = turn.then(() => readRange(file, path, size, start, end));
      turn = read.catch(() => {});
      return read;
    },
    [Symbol.dispose](): void {
      file.close();
    },
  };
}

async function readRange(
  file: Deno.FsFile,
  path: string,
  size: number,
  start: number,
  end: number,
): Promise<Uint8Array<ArrayBuffer>> {
  checkRange(path, size, start, end);
  const bytes = new Uint8Array(end - start);
  await file.seek(start, Deno.SeekMode.Start);
  for (let filled = 0; filled < bytes.length;) {
    const n = await file.read(bytes.subarray(filled));
    if (n === null) {
      throw new RangeError(
        `Cannot read bytes [${start}, ${end}) of "${path}": the file ended at ${
          start + filled
        }, so it was changed meanwhile`,
      );
    }
    filled += n;
  }
  return bytes;
}

/**
 * A folder of this machine. Its files are open only while they are read, so nobody has to close them.
 * Links are followed, wherever they lead.
 * @param options.whenMissing What to do where a file is missing; default to put it there.
 * @throws {Error} If there is no such folder, or it is a file.
 */
export function directory(
  path: string,
  options: { readonly whenMissing?: string } = {},
): Folder {
  let isDirectory: boolean;
  try {
    isDirectory = Deno.statSync(path).isDirectory;
  } catch (cause) {
    throw fileError("open folder", path, cause);
  }
  if (!isDirectory) {
    throw new Error(
      `Cannot open folder "${path}": expected a folder: got a file`,
    );
  }
  const has = async (file: string): Promise<boolean> => {
    checkFileName(path, file);
    return (await stat(join(path, file)))?.isFile ?? false;
  };
  return {
    name: path,
    has,
    async open(file): Promise<Source> {
      if (!await has(file)) throw missingFile(path, file, options.whenMissing);
      using opened = await fileSource(join(path, file));
      const { name, byteLength } = opened;
      return {
        name,
        byteLength,
        async read(start, end): Promise<Uint8Array<ArrayBuffer>> {
          checkRange(name, byteLength, start, end);
          using source = await fileSource(name);
          return await source.read(start, end);
        },
      };
    },
    list: async ({ deep = false } = {}) => (await listFiles(path, deep)).sort(),
  };
}

/** Links to files are files; links to folders are passed over, as they can lead in circles. Only links are asked what they are. */
async function listFiles(path: string, deep: boolean): Promise<string[]> {
  const names: string[] = [];
  for await (const { name, isDirectory, isFile } of Deno.readDir(path)) {
    const at = join(path, name);
    if (deep && isDirectory && !name.startsWith(".")) {
      const below = await listFiles(at, deep);
      for (const file of below) names.push(`${name}/${file}`);
    } else if (isFile || (await stat(at))?.isFile) names.push(name);
  }
  return names;
}

/**
 * Writes a file whole or not at all: to a temporary name beside it, synced to
 * the disk, then renamed. On failure the temporary file is removed and the old
 * file, if any, is as it was.
 * @returns Its length, and its hash, which is taken of what is written while the disk writes it.
 * @throws {Error} If the folder does not exist or cannot be written, or the chunks fail.
 */
export async function writeAtomic(
  path: string,
  content:
    | Uint8Array
    | string
    | Iterable<Uint8Array>
    | AsyncIterable<Uint8Array>,
): Promise<WrittenFile> {
  const unique = crypto.randomUUID().slice(0, 8);
  const temporary = join(dirname(path), `.${basename(path)}.${unique}.tmp`);
  const file = await told(
    "write",
    path,
    () => Deno.open(temporary, { write: true, createNew: true }),
  );
  try {
    const hasher = createHash("sha256");
    let bytes = 0;
    {
      using _ = file;
      for await (const piece of piecesOf(content)) {
        const writing = told("write", path, () => writeAll(file, piece));
        hasher.update(piece);
        await writing;
        bytes += piece.length;
      }
      await told("write", path, () => file.sync());
    }
    await told("write", path, () => Deno.rename(temporary, path));
    return { bytes, sha256: hasher.digest("hex") };
  } catch (error) {
    await Deno.remove(temporary).catch(() => {}); // the first error is the one to tell
    throw error;
  }
}

async function* piecesOf(
  content: Parameters<typeof writeAtomic>[1],
): AsyncGenerator<Uint8Array> {
  const chunks = typeof content === "string"
    ? [new TextEncoder().encode(content)]
    : content instanceof Uint8Array
    ? [content]
    : content;
  for await (const chunk of chunks) {
    for (let at = 0; at < chunk.length; at += PIECE_BYTES) {
      yield chunk.subarray(at, at + PIECE_BYTES);
    }
  }
}

async function writeAll(file: Deno.FsFile, bytes: Uint8Array): Promise<void> {
  for (let written = 0; written < bytes.length;) {
    written += await file.write(bytes.subarray(written));
  }
}

/** Name of the file that says which run a folder holds. */
const MANIFEST_FILE = "manifest.json";

/** What a folder holds; each stage adds its own fields. */
export interface Manifest {
  /** The stage that wrote the folder, such as "residuals". */
  readonly kind: string;
  /** Fingerprint of the configuration; equal means the same run. */
  readonly fingerprint: string;
  /** What a stage adds: sizes, counts, the configuration. */
  readonly [field: string]: unknown;
}

/**
 * Makes a folder, which this process has locked, the output of one run. A missing folder is
 * created, and a first manifest is written when all checks have passed; call it after every other
 * check of the input. What a killed write left under a temporary name is removed.
 * @returns The manifest of the same run when it is resumed, else null.
 * @throws {Error} If the folder holds another run or other files: names the folder and the fix.
 */
export async function claimOutputFolder(
  path: string,
  kind: string,
  configFingerprint: string,
): Promise<Manifest | null> {
  const refuse = (found: string): Error =>
    new Error(
      `Cannot write to "${path}": expected an empty folder or this ${kind} run: got ${found}: choose another folder with --out`,
    );
  const existing = await stat(path);
  if (existing && !existing.isDirectory) throw refuse("a file");
  if (existing) {
    const names = Array.from(Deno.readDirSync(path), (entry) => entry.name)
      .filter((name) => !/^\..*\.lock$/.test(name)); // whoever claims has locked it
    const leftovers = names.filter((name) => /^\..*\.tmp$/.test(name));
    if (names.includes(MANIFEST_FILE)) {
      const manifest = await readManifest(path);
      if (manifest.kind !== kind) throw refuse(`a ${manifest.kind} run`);
      if (manifest.fingerprint !== configFingerprint) {
        throw refuse(`a ${kind} run of another configuration`);
      }
      await removeAll(path, leftovers);
      return manifest;
    }
    const unknown = names.filter((name) => !leftovers.includes(name)).sort();
    if (unknown.length > 0) throw refuse(`other files ("${unknown[0]}")`);
    await removeAll(path, leftovers);
  }
  await told(
    "create folder",
    path,
    () => Deno.mkdir(path, { recursive: true }),
  );
  await writeManifest(path, { kind, fingerprint: configFingerprint });
  return null;
}

async function removeAll(folder: string, files: string[]): Promise<void> {
  for (const file of files) {
    const path = join(folder, file);
    await told("remove", path, () => Deno.remove(path));
  }
}

/**
 * Fingerprint of a configuration: SHA-256 of its JSON with sorted keys, 16 hex
 * digits. What may differ between a run and its resumption must be left out.
 */
export async function fingerprint(config: unknown): Promise<string> {
  const sorted = (_key: string, value: unknown): unknown =>
    typeof value === "object" && value !== null && !Array.isArray(value)
      ? Object.fromEntries(
        Object.entries(value).sort(([a], [b]) => a < b ? -1 : 1),
      )
      : value;
  const bytes = new TextEncoder().encode(JSON.stringify(config, sorted));
  const digest = await crypto.subtle.digest("SHA-256", bytes);
  return new Uint8Array(digest).toHex().slice(0, 16);
}

/**
 * Reads the manifest of a folder.
 * @throws {Error} If there is none, or it names no kind and fingerprint.
 */
export async function readManifest(path: string): Promise<Manifest> {
  const source = await directory(path).open(MANIFEST_FILE);
  const manifest = await readJson(source);
  if (!isManifest(manifest)) {
    throw new SyntaxError(
      `Cannot read "${source.name}": expected an object with the texts "kind" and "fingerprint"`,
    );
  }
  return manifest;
}

function isManifest(json: unknown): json is Manifest {
  return typeof json === "object" && json !== null &&
    "kind" in json && typeof json.kind === "string" &&
    "fingerprint" in json && typeof json.fingerprint === "string";
}

/** Writes the manifest of a folder, whole or not at all. */
export async function writeManifest(
  path: string,
  manifest: Manifest,
): Promise<void> {
  const text = JSON.stringify(manifest, null, 2) + "\n";
  await writeAtomic(join(path, MANIFEST_FILE), text);
}

/** Status of a path, or null where there is nothing. */
async function stat(path: string): Promise<Deno.FileInfo | null> {
  try {
    return await Deno.stat(path);
  } catch (cause) {
    // A file where the path has a folder: then there is nothing either.
    if (cause instanceof Deno.errors.NotFound) return null;
    if (cause instanceof Deno.errors.NotADirectory) return null;
    throw fileError("read", path, cause);
  }
}

/** Runs a file operation; its failure is a {@link fileError}. */
export async function told<T>(
  verb: string,
  path: string,
  operation: () => Promise<T>,
): Promise<T> {
  try {
    return await operation();
  } catch (cause) {
    throw fileError(verb, path, cause);
  }
}

/** The error of a file operation that failed: what was done, the path and the reason in one line. */
export function fileError(verb: string, path: string, cause: unknown): Error {
  const prefix = `Cannot ${verb} "${path}"`;
  if (cause instanceof Deno.errors.NotFound) {
    return new Error(`${prefix}: no such file or folder: check the path`, {
      cause,
    });
  }
  if (cause instanceof Deno.errors.NotCapable) {
    const flag = verb === "open" || verb === "read" ? "read" : "write";
    return new Error(`${prefix}: not permitted: run with --allow-${flag}`, {
      cause,
    });
  }
  const reason = cause instanceof Error ? cause.message : String(cause);
  const isFull = cause instanceof Error && "code" in cause &&
    cause.code === "ENOSPC";
  const fix = isFull ? ": free some space and run the same command again" : "";
  return new Error(`${prefix}: ${reason.replace(/\s+/g, " ")}${fix}`, {
    cause,
  });
}
