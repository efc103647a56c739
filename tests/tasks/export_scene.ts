/**
 * A folder with a made SAE, its labels and an index of its features, and exports of it in this process.
 * @module
 */
// deno-lint-ignore-file no-console
import { join } from "node:path";
import { directory, writeAtomic } from "../../core/files.ts";
import { SaeFile } from "../../core/sae_file.ts";
import { FeatureIndexBuilder } from "../../steer/feature_index.ts";
import {
  saeFingerprint,
  saveFeatureIndex,
} from "../../steer/feature_index_file.ts";
import { runStage, type TaskContext } from "../../tasks/cli.ts";
import { EXPORT, exportTask } from "../../tasks/export.ts";
import { Progress } from "../../tasks/progress.ts";
import { testGpu } from "../gpu_for_tests.ts";
import { openTinyModel } from "../steer/embedded.ts";
import { sparse } from "../steer/sparse_rows.ts";
import { D_SAE, type MadeSae, makeSae } from "./made_sae.ts";
import { scratchFolder } from "./run_task.ts";

/** Text of the one document that the index was made of; feature t + 1 fires on its token t. */
export const TEXT = `It's a "dog",\ntwo\\ dogs é`;

/** Writes an SAE into `sae` of a scratch folder. */
export async function exportScene(
  options: MadeSae = {},
): Promise<{ path: string; sae: string } & Disposable> {
  const folder = scratchFolder();
  const sae = join(folder.path, "sae");
  await Deno.mkdir(sae);
  await makeSae(sae, options);
  const model = await openTinyModel();
  const ids = model.tokenizer.encode(TEXT, { addSpecial: false });
  const builder = new FeatureIndexBuilder({
    modelFingerprint: model.fingerprint,
    saeFingerprint: await saeFingerprint(await SaeFile.open(directory(sae))),
    text: "made",
  }, D_SAE);
  const rows = ids.map((_, t) => {
    const row = new Array<number>(D_SAE).fill(0);
    row[t + 1] = t + 0.5;
    return row;
  });
  builder.add(
    { id: "made:0", ids: Uint32Array.from([0, ...ids]) },
    sparse(rows),
  );
  await saveFeatureIndex(
    (file, content) => writeAtomic(join(sae, file), content),
    builder.finish(),
  );
  const { path } = folder;
  return { path, sae, [Symbol.dispose]: () => folder[Symbol.dispose]() };
}

/** Runs `export` with arguments as they are typed; returns what it prints. */
export function runExport(
  argv: readonly string[],
  signal?: AbortSignal,
): Promise<string> {
  return printed(
    (context) => runStage(EXPORT, exportTask, argv, context),
    signal,
  );
}

/** What a stage prints, in this process and on the GPU of the tests. */
export async function printed(
  stage: (context: TaskContext) => Promise<void>,
  signal: AbortSignal = new AbortController().signal,
): Promise<string> {
  const context: TaskContext = {
    signal,
    quiet: true,
    openGpu: () => testGpu(),
    plan: () => {},
    progress: (options) => new Progress({ ...options, quiet: true }),
    note: () => {},
  };
  const lines: string[] = [];
  const log = console.log;
  console.log = (text: string) => lines.push(text);
  try {
    await stage(context);
  } finally {
    console.log = log;
  }
  return lines.join("\n");
}
