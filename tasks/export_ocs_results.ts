/**
 * `export --to open-concept-steering`.
 * @module
 */
// deno-lint-ignore-file no-console
import { ocsResultFiles } from "../steer/ocs_results.ts";
import { userPath } from "./cli.ts";
import { type ExportSourceFlags, openExportSources } from "./export_sources.ts";
import { checkNewFolder, writeNewFolder } from "./new_folder.ts";

/** Writes the results of an index, and prints the files. */
export async function exportOcsResults(
  out: string,
  flags: ExportSourceFlags,
): Promise<void> {
  const folder = userPath(out);
  checkNewFolder(folder);
  const { index, labels, model } = await openExportSources(flags);
  const { tokenizer } = model;
  const files = ocsResultFiles({ index, labels, tokenizer });
  await writeNewFolder(folder, async (write) => {
    for (const { file, chunks } of files) await write(file, chunks());
  });
  for (const { file } of files) console.log(`${folder}/${file}`);
}
