/**
 * Translates a training config of open-concept-steering:
 * `./ocs import-config train_sae_65k.py --out out/65k.json`, then `./ocs train --config out/65k.json`.
 * @module
 */
// deno-lint-ignore-file no-console
import { basename } from "node:path";
import { directory, writeAtomic } from "../core/files.ts";
import { type ConfigOf, type FlagTable, mergeConfig } from "../core/flags.ts";
import { ResidualFolder } from "../core/residuals.ts";
import {
  type ImportedConfig,
  importOcsConfig,
  ocsCode,
} from "../train/import_ocs_config.ts";
import { parsePythonConfig, type PythonDict } from "../train/python_config.ts";
import { openPath, runTask, type TaskSpec, userPath } from "./cli.ts";
import { RECIPE_FLAGS } from "./recipe_flags.ts";

const FLAGS = {
  file: {
    type: "string",
    required: true,
    help:
      "Python file with the dictionary `config`; it is read, never executed",
  },
  out: {
    type: "string",
    help:
      "JSON file to write, for --config of train; without it the JSON is printed",
  },
  residuals: {
    type: "string",
    help:
      "folder that collect wrote, to count its vectors for the number of steps",
  },
  vectors: {
    default: 600_000_000,
    integer: true,
    min: 1,
    help:
      "vectors of the data, without --residuals; the default is what its configs speak of",
  },
  input_scale: {
    default: 0.7476,
    min: Number.MIN_VALUE,
    help:
      "√d_model / mean norm of the vectors it trained on; the default is the --norm_factor of its train.py, for OLMo-2 7B",
  },
  code_date: {
    type: "string",
    help:
      "day of the train.py it was trained with, YYYY-MM-DD, as its λ changed meaning; the newest without it",
  },
} as const satisfies FlagTable;

/** Reads, translates, writes, and says what was done. */
export async function importConfigTask(
  flags: ConfigOf<typeof FLAGS>,
): Promise<void> {
  const imported = importOcsConfig(await readConfig(flags.file), {
    code: ocsCode(flags.code_date),
    inputScale: flags.input_scale,
    nVectors: await countVectors(flags),
  }, flags.file);
  mergeConfig(RECIPE_FLAGS, imported.flags, flags.file);
  const json = JSON.stringify(imported.flags, null, 2) + "\n";
  if (flags.out === undefined) {
    console.error(describeImport(imported));
    console.log(json.trimEnd());
    return;
  }
  const out = userPath(flags.out);
  await writeAtomic(out, json);
  console.log(describeImport(imported));
  console.log(`config: ${out}`);
}

async function readConfig(typed: string): Promise<PythonDict> {
  const source = await openPath(typed);
  if (!("read" in source)) {
    throw new TypeError(
      `Cannot read "${typed}": expected a Python file: got a folder`,
    );
  }
  const bytes = await source.read(0, source.byteLength);
  const text = new TextDecoder().decode(bytes);
  const config = parsePythonConfig(text, basename(typed)).get("config");
  if (config instanceof Map) return config;
  throw new SyntaxError(
    `Cannot read "${typed}": expected the assignment config = {…}: got ${
      config === undefined ? "none" : "another value"
    }`,
  );
}

async function countVectors(flags: ConfigOf<typeof FLAGS>): Promise<number> {
  if (flags.residuals === undefined) return flags.vectors;
  const folder = directory(userPath(flags.residuals));
  return (await ResidualFolder.open(folder)).manifest.n_tokens;
}

function describeImport({ converted, ignored }: ImportedConfig): string {
  return [
    ...converted.map((line) => `converted: ${line}`),
    ...ignored.map((line) => `ignored: ${line}`),
  ].join("\n");
}

/** The task, for the command line. */
export const IMPORT_CONFIG: TaskSpec<typeof FLAGS> = {
  name: "import-config",
  description:
    "Translates a Python training config of open-concept-steering into flags of train, λ converted.",
  flags: FLAGS,
  positionals: ["file"],
};

if (import.meta.main) await runTask(IMPORT_CONFIG, importConfigTask);
