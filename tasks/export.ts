/**
 * Gives what is known of features to other tools, and takes theirs:
 * `./ocs export --to neuronpedia --out out/neuronpedia`, `./ocs export --from feature_labels.csv --sae out/sae`.
 * @module
 */
import type { ConfigOf, FlagTable } from "../core/flags.ts";
import {
  ANY_MODEL_FLAG,
  GPU_FLAGS,
  MODEL_FLAG,
  runTask,
  SAE_FLAG,
  type TaskContext,
  type TaskSpec,
} from "./cli.ts";
import { exportNeuronpedia, NEURONPEDIA_FLAGS } from "./export_neuronpedia.ts";
import { exportOcsResults } from "./export_ocs_results.ts";
import { exportSaeBench, SAE_BENCH_FLAGS } from "./export_sae_bench.ts";
import { importResults } from "./import_results.ts";

const FLAGS = {
  to: {
    type: "string",
    choices: ["neuronpedia", "sae-bench", "open-concept-steering"] as const,
    help: "the tool that is to read it",
  },
  from: {
    type: "string",
    help:
      "instead of --to: a file or folder of Neuronpedia's explanations or of open-concept-steering's results, whose labels and largest activations go to the SAE's folder",
  },
  ...SAE_FLAG,
  index: {
    type: "string",
    help: "folder that find --out wrote; without it that of the SAE",
  },
  out: { type: "string", help: "folder that is written, whole or not at all" },
  replace: {
    default: false,
    help: "with --from: labels that the SAE has already give way",
  },
  layer: {
    type: "number",
    integer: true,
    min: 0,
    help: "block of an SAE whose files do not tell it",
  },
  ...MODEL_FLAG,
  ...ANY_MODEL_FLAG,
  ...NEURONPEDIA_FLAGS,
  ...SAE_BENCH_FLAGS,
  ...GPU_FLAGS,
} as const satisfies FlagTable;

/** Values of the flags. */
export type ExportFlags = ConfigOf<typeof FLAGS>;

/** The task, for the command line and for tests. */
export const EXPORT: TaskSpec<typeof FLAGS> = {
  name: "export",
  description:
    "Writes what is known of features for Neuronpedia, SAEBench or open-concept-steering, and reads labels of theirs.",
  flags: FLAGS,
};

/** Exports or imports as the flags say. */
export async function exportTask(
  flags: ExportFlags,
  context: TaskContext,
): Promise<void> {
  const { to, from, out } = flags;
  if ((to === undefined) === (from === undefined)) {
    throw new TypeError(
      `Cannot export: expected either --to or --from: got ${
        to === undefined ? "neither" : "both"
      }`,
    );
  }
  if (from !== undefined) return await importResults(from, flags);
  if (out === undefined) {
    throw new TypeError("Cannot export: expected --out FOLDER: got none");
  }
  if (to === "neuronpedia") await exportNeuronpedia(out, flags, context);
  else if (to === "sae-bench") await exportSaeBench(out, flags, context);
  else await exportOcsResults(out, flags);
}

if (import.meta.main) await runTask(EXPORT, exportTask);
