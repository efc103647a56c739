/**
 * Flags of tasks whose work many processes can share: several on this machine, or jobs of a cluster.
 * @module
 */
import type { ConfigOf, FlagTable } from "../core/flags.ts";
import { GPUS_HELP } from "./gpu_places.ts";

/** What all such tasks take. */
export const ENGINE_FLAGS = {
  jobs: {
    type: "number",
    integer: true,
    min: 1,
    max: 100_000,
    help:
      "at once: processes on each GPU, 1 without it; jobs of a cluster, all without it",
  },
  gpus: { type: "string", help: GPUS_HELP },
  sbatch: {
    type: "strings",
    help: "option of sbatch, such as gres=gpu:1 or time=12:00:00",
  },
  dry_run: {
    default: false,
    help: "with --engine slurm: write the scripts, submit nothing",
  },
} as const satisfies FlagTable;

/** What tasks take that split one text into shares; they have `--shard` and `--out` as well. */
export const SHARED_FLAGS = {
  engine: {
    default: "local",
    choices: ["local", "slurm", "kubernetes"],
    help:
      "who runs --tasks: processes of this machine, an array of Slurm's, or an Indexed Job, which is printed for kubectl",
  },
  tasks: {
    type: "number",
    integer: true,
    min: 1,
    max: 100_000,
    help:
      "share the text between as many processes or jobs; as many as --gpus and --jobs make without it",
  },
  ...ENGINE_FLAGS,
  image: {
    type: "string",
    help:
      "with --engine kubernetes: container image that has this repository as its working directory",
  },
  volume: {
    type: "strings",
    help: "with --engine kubernetes: CLAIM:/PATH, a volume and where it is",
  },
  secret: {
    type: "strings",
    help:
      "with --engine kubernetes: secret whose entries become variables, such as credentials of S3",
  },
  limit: {
    type: "strings",
    help:
      "with --engine kubernetes: resource of each pod, such as memory=32Gi; nvidia.com/gpu=1 without any",
  },
} as const satisfies FlagTable;

/** Values of {@link SHARED_FLAGS}, and of `--shard`. */
export type SharedFlags = ConfigOf<typeof SHARED_FLAGS> & {
  readonly shard: string | undefined;
};

/**
 * Refuses what only Slurm understands where another engine is to do the work: it would begin at once, and here.
 * @throws {TypeError} Names the flag.
 */
export function checkEngine(
  { engine, sbatch, dry_run }: Pick<
    SharedFlags,
    "engine" | "sbatch" | "dry_run"
  >,
): void {
  const flag = dry_run ? "--dry-run" : sbatch.length > 0 ? "--sbatch" : "";
  if (flag === "" || engine === "slurm") return;
  throw new TypeError(
    `Cannot share the work: expected ${flag} with --engine slurm only: got --engine ${engine}`,
  );
}

/**
 * Whether the work is for others to do: then this process only starts them.
 * @throws {TypeError} If flags are missing, or contradict each other.
 */
export function isShared(flags: SharedFlags): boolean {
  const { engine, tasks, gpus, jobs, shard } = flags;
  checkEngine(flags);
  const isAlone = engine === "local" && tasks === undefined &&
    gpus === undefined && jobs === undefined;
  if (isAlone) return false;
  const refuse = (expected: string, got: string): TypeError =>
    new TypeError(`Cannot share the work: expected ${expected}: got ${got}`);
  if (shard !== undefined) {
    throw refuse(
      "--shard, or flags of those who do all shares",
      `both: leave out --shard ${shard}`,
    );
  }
  if (engine !== "local" && tasks === undefined) {
    throw refuse(`--tasks NUMBER with --engine ${engine}`, "nothing");
  }
  if (engine !== "local" && gpus !== undefined) {
    throw refuse(
      `no --gpus with --engine ${engine}`,
      `--gpus ${gpus}: the cluster gives each job its own`,
    );
  }
  return true;
}
