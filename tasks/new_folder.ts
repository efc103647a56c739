/**
 * Folders that are there whole or not at all.
 * @module
 */
import { basename, dirname, join } from "node:path";
import { told, writeAtomic } from "../core/files.ts";

/** Writes a file of the folder; `/` in its name makes folders. */
export type WriteInto = (
  file: string,
  content: string | Uint8Array | AsyncIterable<Uint8Array>,
) => Promise<void>;

/**
 * Writes a folder under a temporary name beside it and renames it. On failure nothing is left.
 * @throws {Error} If something other than an empty folder is at the path.
 */
export async function writeNewFolder<T>(
  path: string,
  fill: (write: WriteInto) => Promise<T>,
): Promise<T> {
  checkNewFolder(path);
  const unique = crypto.randomUUID().slice(0, 8);
  const temporary = join(dirname(path), `.${basename(path)}.${unique}.tmp`);
  await makeFolder(temporary);
  try {
    const result = await fill(async (file, content) => {
      const target = join(temporary, file);
      await makeFolder(dirname(target));
      await writeAtomic(target, content);
    });
    checkNewFolder(path);
    await told("write", path, async () => {
      await Deno.remove(path).catch(() => {}); // an empty folder; renaming tells what else is wrong
      await Deno.rename(temporary, path);
    });
    return result;
  } catch (error) {
    await Deno.remove(temporary, { recursive: true }).catch(() => {}); // the first error is the one to tell
    throw error;
  }
}

/**
 * Checks that a folder can be written anew, before work is done for it.
 * @throws {Error} If something other than an empty folder is at the path.
 */
export function checkNewFolder(path: string): void {
  let names: string[];
  try {
    names = Array.from(Deno.readDirSync(path), ({ name }) => name).sort();
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return;
    names = ["a file"];
  }
  if (names.length === 0) return;
  throw new Error(
    `Cannot write to "${path}": expected no such folder, or an empty one: got ${
      names[0] === "a file" ? "a file" : `one with "${names[0]}"`
    }: choose another with --out`,
  );
}

async function makeFolder(path: string): Promise<void> {
  await told(
    "create folder",
    path,
    () => Deno.mkdir(path, { recursive: true }),
  );
}
