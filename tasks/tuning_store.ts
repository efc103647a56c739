/**
 * Where timings of adapters are kept between runs: a file in the user's cache folder.
 * @module
 */
import { dirname, isAbsolute, join } from "node:path";
import type { FlagTable } from "../core/flags.ts";
import type { TuningStore } from "../gpu/mod.ts";
import { variable } from "./environment.ts";

/** `--autotune`. */
export const AUTOTUNE_FLAG = {
  autotune: {
    default: "on",
    choices: ["off", "on", "force"],
    help:
      "time a few variants of each kernel on this adapter: never, where no earlier run has, or anew",
  },
} as const satisfies FlagTable;

/** The file; undefined where the user has no cache folder that is known. */
export function tuningFile(
  env: (name: string) => string | undefined = variable,
  os: typeof Deno.build.os = Deno.build.os,
): string | undefined {
  const home = env("HOME");
  const own = env("XDG_CACHE_HOME");
  const cache = os === "windows" ? env("LOCALAPPDATA") : own && isAbsolute(own) // others are to be ignored, by the XDG specification
    ? own
    : home && join(home, os === "darwin" ? "Library/Caches" : ".cache");
  return cache && join(cache, "open-concept-steering", "tuning.json");
}

/** Keeps timings in a file, as long as it can be read and written; they are a convenience and no reason to fail. */
export function fileStore(path: string | undefined): TuningStore {
  return {
    async load(): Promise<unknown> {
      if (path === undefined || !isGranted("read", path)) return undefined;
      try {
        return JSON.parse(await Deno.readTextFile(path));
      } catch {
        return undefined; // not there yet, or damaged: timed anew
      }
    },
    async save(json): Promise<void> {
      if (path === undefined || !isGranted("write", path)) return;
      const temporary = `${path}.${crypto.randomUUID()}.tmp`;
      try {
        await Deno.mkdir(dirname(path), { recursive: true });
        await Deno.writeTextFile(temporary, JSON.stringify(json, null, 1));
        await Deno.rename(temporary, path);
      } catch {
        await Deno.remove(temporary).catch(() => {}); // a full disk, or no right to write there
      }
    },
  };
}

function isGranted(name: "read" | "write", path: string): boolean {
  return Deno.permissions.querySync({ name, path }).state === "granted";
}
