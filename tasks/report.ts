/**
 * Draws training runs as one HTML page:
 * `./ocs report out/sae out/other --out report.html`.
 * @module
 */
// deno-lint-ignore-file no-console
import { writeAtomic } from "../core/files.ts";
import type { ConfigOf, FlagTable } from "../core/flags.ts";
import { runTask, type TaskContext, type TaskSpec, userPath } from "./cli.ts";
import { formatCount } from "./format.ts";
import { readRunFolder, type RunFolder } from "./run_folder.ts";
import { runReportPage } from "./run_report.ts";

const FLAGS = {
  runs: {
    type: "strings",
    help: "folders that train wrote, or writes",
  },
  out: {
    default: "report.html",
    help: "file to write",
  },
} as const satisfies FlagTable;

/** Draws what the flags say. */
export async function reportTask(
  flags: ConfigOf<typeof FLAGS>,
  context: TaskContext,
): Promise<void> {
  if (flags.runs.length === 0) {
    throw new TypeError(
      "Cannot report: expected the folder of a run: got none: type it, as in ./ocs report out/sae",
    );
  }
  const runs: RunFolder[] = [];
  for (const path of flags.runs) {
    const run = await readRunFolder(userPath(path));
    if (run.nDamaged > 0) {
      context.note(
        `"${path}": ${
          formatCount(run.nDamaged)
        } damaged lines of the metrics are left out`,
      );
    }
    runs.push(run);
  }
  const out = userPath(flags.out);
  await writeAtomic(out, runReportPage(namedApart(runs, flags.runs)));
  console.log(`${runs.map(sentence).join("\n")}\nreport: ${out}`);
}

/** Runs whose folders are called the same by their paths. */
function namedApart(
  runs: readonly RunFolder[],
  paths: readonly string[],
): RunFolder[] {
  return runs.map((run, n) => {
    const isAlone = runs.every((other) =>
      other === run || other.name !== run.name
    );
    return isAlone ? run : { ...run, name: paths[n]! };
  });
}

function sentence({ name, lines, isDone }: RunFolder): string {
  const state = isDone === false ? ", not complete" : "";
  return `${name}: ${formatCount(lines.length)} measured steps, up to ${
    formatCount(lines.at(-1)!.step)
  }${state}`;
}

/** The task, for the command line. */
export const REPORT: TaskSpec<typeof FLAGS> = {
  name: "report",
  description:
    "Draws the curves and the features' densities of training runs as one HTML page.",
  flags: FLAGS,
  positionals: ["runs"],
};

if (import.meta.main) await runTask(REPORT, reportTask);
