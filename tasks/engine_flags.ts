/**
 * Flags of tasks whose work many processes can share: several on this machine, or jobs of a cluster.
 * @module
 */
import type { FlagTable } from "../core/flags.ts";
import { GPUS_HELP } from "./gpu_places.ts";

/** What all engines take. */
export const ENGINE_FLAGS = {
  jobs: {
    type: "number",
    integer: true,
    min: 1,
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
    help: "with an engine of a cluster: write what it needs, submit nothing",
  },
} as const satisfies FlagTable;
