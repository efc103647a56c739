/**
 * What `--model` and `--sae` name: a folder, or a repository in the Hugging Face cache.
 * @module
 */
import { join } from "node:path";
import { directory } from "../core/files.ts";
import { hubCache, parseHubAddress } from "../core/hub_cache.ts";
import { downloadCommand, findSnapshot } from "../core/hub_snapshot.ts";
import type { Folder } from "../core/source.ts";
import { variable } from "./environment.ts";

/**
 * Opens an existing folder, or the repository `owner/name`, `owner/name@revision` or
 * `owner/name/folder` as the Hugging Face cache has it. Never asks the network.
 * @param what What it is to be, for errors: "model".
 * @param path The typed text as a path.
 * @throws {Error} If there is neither: says what to run.
 */
export async function openFolderOrRepo(
  what: string,
  typed: string,
  path: string,
): Promise<Folder> {
  const address = exists(path) ? undefined : parseHubAddress(typed);
  if (!address) return directory(path);
  const cache = hubCache(variable);
  const open = (inside: string): Folder | undefined => {
    const folder = join(cache, inside);
    return isFolder(folder) ? directory(folder) : undefined;
  };
  const snapshot = await findSnapshot(what, address, open, cache);
  return directory(join(cache, snapshot), {
    whenMissing: `run ${downloadCommand(address)}`,
  });
}

/** Whether anything is at a path. */
export function exists(path: string): boolean {
  try {
    Deno.lstatSync(path);
    return true;
  } catch {
    return false; // opening it says what is wrong
  }
}

/** Whether there is a folder at a path. */
export function isFolder(path: string): boolean {
  try {
    return Deno.statSync(path).isDirectory;
  } catch {
    return false; // opening it says what is wrong
  }
}

/** Whether there is a file at a path. */
export function isFile(path: string): boolean {
  try {
    return Deno.statSync(path).isFile;
  } catch {
    return false; // opening it says what is wrong
  }
}
