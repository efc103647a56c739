/**
 * Folders that appear whole or not at all.
 * @module
 */
import { basename, dirname, join } from "node:path";
import { told, writeAtomic } from "../core/files.ts";
import type { WriteFile } from "../core/sae_file.ts";

/**
 * Checks that nothing is where a file or folder is to be made.
 * @throws {Error} If something is.
 */
export async function checkNothingAt(path: string): Promise<void> {
  try {
    await Deno.lstat(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return;
    throw error;
  }
  throw new Error(
    `Cannot write "${path}": expected nothing there: got a file or folder: choose another name with --out`,
  );
}

/**
 * Makes a folder: its files are written into one beside it, which is renamed when `fill` has ended. If that fails,
 * nothing stays; a process that is killed leaves the folder beside it, hidden: `.NAME.….tmp`.
 * @throws {Error} If something is there, or a file cannot be written.
 */
export async function makeFolder(
  path: string,
  fill: (write: WriteFile) => Promise<void>,
): Promise<void> {
  await checkNothingAt(path);
  const unique = crypto.randomUUID().slice(0, 8);
  const aside = join(dirname(path), `.${basename(path)}.${unique}.tmp`);
  await told(
    "create folder",
    path,
    () => Deno.mkdir(aside, { recursive: true }),
  );
  try {
    await fill((file, content) => writeAtomic(join(aside, file), content));
    await told("write", path, () => Deno.rename(aside, path));
  } catch (error) {
    // The first error is the one to tell.
    await Deno.remove(aside, { recursive: true }).catch(() => {});
    throw error;
  }
}
