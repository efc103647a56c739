/**
 * How much memory there is: what a person says, and what the system knows.
 * @module
 */
import type { FlagTable } from "../core/flags.ts";
import type { MemoryBudget } from "./memory_plan.ts";

/** `--memory`; give its value to {@link memoryBudget}. */
export const MEMORY_FLAG = {
  memory: {
    type: "string",
    help:
      "memory of the GPU that may be taken, such as 24GB, as WebGPU tells none; what does not fit is refused",
  },
} as const satisfies FlagTable;

const UNITS: Readonly<Record<string, number>> = {
  "": 1,
  k: 1e3,
  m: 1e6,
  g: 1e9,
  t: 1e12,
  ki: 2 ** 10,
  mi: 2 ** 20,
  gi: 2 ** 30,
  ti: 2 ** 40,
};

/**
 * Bytes of a size as people write it: 24GB, 24 GiB, 1.5e9.
 * @throws {RangeError} If it is none.
 */
export function parseBytes(text: string): number {
  const [, number, unit = ""] =
    /^\s*(\d+(?:\.\d+)?(?:e\d+)?)\s*([kmgt]i?)?b?\s*$/i.exec(text) ?? [];
  const bytes = Math.floor(Number(number) * UNITS[unit.toLowerCase()]!);
  if (number !== undefined && bytes > 0 && Number.isSafeInteger(bytes)) {
    return bytes;
  }
  throw new RangeError(
    `Cannot read --memory: expected a size such as 24GB or 16GiB: got ${
      JSON.stringify(text)
    }`,
  );
}

/**
 * What a run may take: of a software adapter the host's available memory, of a
 * card only what `--memory` says; of the host what the system tells.
 * @param typed Value of `--memory`, if given.
 * @throws {RangeError} If it is no size.
 */
export function memoryBudget(
  gpu: { readonly isSoftware: boolean },
  typed?: string,
): MemoryBudget {
  const host = hostMemory();
  return {
    isShared: gpu.isSoftware,
    ...(typed !== undefined && { gpu: parseBytes(typed) }),
    ...(host !== undefined && { host }),
  };
}

/** Bytes of this machine, or of its container, that are free to take; undefined where it may not be asked. */
export function hostMemory(): number | undefined {
  const { state } = Deno.permissions.querySync({
    name: "sys",
    kind: "systemMemoryInfo",
  });
  if (state !== "granted") return undefined;
  return Math.min(Deno.systemMemoryInfo().available, containerMemory());
}

/** What the container's limit leaves; Infinity without one. */
function containerMemory(): number {
  const read = (file: string): number => {
    try {
      const text = Deno.readTextFileSync(`/sys/fs/cgroup/${file}`);
      return Number(text); // NaN for "max"
    } catch {
      return NaN; // no control groups, or none that may be read
    }
  };
  const left = read("memory.max") - read("memory.current");
  return Number.isNaN(left) ? Infinity : Math.max(0, left);
}
