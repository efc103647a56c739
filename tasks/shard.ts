/**
 * Which share of a text a process reads, where many share it.
 * @module
 */
import type { FlagTable } from "../core/flags.ts";
import type { TextShard } from "../core/text.ts";

/** `--shard`; give its value to {@link shardOf}. */
export const SHARD_FLAG = {
  shard: {
    type: "string",
    help:
      "read share i of n only, as i/n with i from 0; without it what Slurm or Kubernetes says of an array's task, else all",
  },
} as const satisfies FlagTable;

/** Shares that file names of three digits and more can tell apart without being a mistake. */
const MOST_SHARDS = 100_000;

/** Reads a variable; undefined where it is not set. */
type Environment = (name: string) => string | undefined;

/**
 * The share that `--shard` means, or else the environment: `SLURM_ARRAY_TASK_ID` of
 * `SLURM_ARRAY_TASK_COUNT`, or `JOB_COMPLETION_INDEX` of `OCS_SHARD_COUNT`.
 * @returns undefined where nothing is said: all of the work.
 * @throws {RangeError} If what is said is no share, or one half of it is missing.
 */
export function shardOf(
  flag: string | undefined,
  environment: Environment,
): TextShard | undefined {
  if (flag !== undefined) return parseShard(flag);
  const read: Environment = (name) => environment(name) || undefined;
  return slurmShard(read) ?? kubernetesShard(read);
}

/**
 * Reads "3/64".
 * @throws {RangeError} If it is no share.
 */
export function parseShard(typed: string): TextShard {
  const [, index = "", count = ""] = /^(\d+)\/(\d+)$/.exec(typed) ?? [];
  return checkedShard(Number(index || NaN), Number(count), {
    from: "--shard",
    got: JSON.stringify(typed),
  });
}

/** Ids of an array's tasks may begin anywhere, but must not leave any out: then no task knows its place. */
function slurmShard(read: Environment): TextShard | undefined {
  const id = read("SLURM_ARRAY_TASK_ID");
  const count = read("SLURM_ARRAY_TASK_COUNT");
  const min = read("SLURM_ARRAY_TASK_MIN") ?? "0";
  if (id === undefined && count === undefined) return undefined;
  const shard = checkedShard(wholeNumber(id) - wholeNumber(min), count, {
    from: "SLURM_ARRAY_TASK_ID and SLURM_ARRAY_TASK_COUNT",
    got: `${id ?? "nothing"} and ${count ?? "nothing"}, from ${min} on`,
  });
  const max = read("SLURM_ARRAY_TASK_MAX");
  if (
    max === undefined ||
    wholeNumber(max) - wholeNumber(min) === shard.count - 1
  ) return shard;
  throw new RangeError(
    `Cannot choose a shard: expected a Slurm array that leaves out no number: got ${count} tasks from ${min} to ${max}: give --shard i/n`,
  );
}

function kubernetesShard(read: Environment): TextShard | undefined {
  const index = read("JOB_COMPLETION_INDEX");
  const count = read("OCS_SHARD_COUNT");
  if (index === undefined && count === undefined) return undefined;
  return checkedShard(wholeNumber(index), count, {
    from: "JOB_COMPLETION_INDEX and OCS_SHARD_COUNT",
    got: `${index ?? "nothing"} and ${count ?? "nothing"}`,
  });
}

function checkedShard(
  index: number,
  typedCount: string | number | undefined,
  { from, got }: { readonly from: string; readonly got: string },
): TextShard {
  const count = typeof typedCount === "number"
    ? typedCount
    : wholeNumber(typedCount);
  if (index >= 0 && index < count && count <= MOST_SHARDS) {
    return { index, count };
  }
  throw new RangeError(
    `Cannot choose a shard: expected ${from} to give i and n, i from 0 to n - 1, n up to ${MOST_SHARDS}: got ${got}: such as --shard 3/64`,
  );
}

/** NaN where it is none. */
function wholeNumber(text: string | undefined): number {
  return text !== undefined && /^\d+$/.test(text) ? Number(text) : NaN;
}
