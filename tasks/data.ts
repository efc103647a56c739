/**
 * Folders of residuals: `./ocs data check DIR`, `./ocs data merge DIR`,
 * `./ocs data merge A B --out C`, `./ocs data stats DIR --plot norms.svg`.
 * @module
 */
// deno-lint-ignore-file no-console
import { extname } from "node:path";
import { fingerprint, writeAtomic } from "../core/files.ts";
import type { ConfigOf, FlagTable } from "../core/flags.ts";
import type { ResidualManifest } from "../core/residual_manifest.ts";
import { ResidualFolder } from "../core/residuals.ts";
import { checkResiduals } from "../train/residual_check.ts";
import { joinFolders, mergeTasks, openWhole } from "../train/residual_merge.ts";
import { residualStats } from "../train/residual_stats.ts";
import { runTask, type TaskContext, type TaskSpec } from "./cli.ts";
import { describeStats, statsPage, statsPlot } from "./data_report.ts";
import { formatBytes, formatCount } from "./format.ts";
import { openFolder, openStore, userPath } from "./storage.ts";

const FLAGS = {
  action: {
    type: "string",
    required: true,
    choices: ["check", "merge", "stats"],
    help:
      "check: verify every byte and vector; merge: one folder of what several tasks wrote into one, or of several folders; stats: norms, mean and tokens",
  },
  folders: {
    type: "strings",
    help: "folders that collect wrote, also s3://BUCKET/FOLDER",
  },
  out: { type: "string", help: "new folder, when several are merged" },
  plot: {
    type: "string",
    help: ".svg or .html file to draw the norms of stats into",
  },
  json: { default: false, help: "print stats as JSON" },
} as const satisfies FlagTable;

type Flags = ConfigOf<typeof FLAGS>;

/** Does what the flags say; code 1 where a check finds faults. */
export async function dataTask(
  flags: Flags,
  context: TaskContext,
): Promise<number> {
  const { action, folders, out } = flags;
  const isJoin = action === "merge" && out !== undefined;
  const isRight = isJoin ? folders.length >= 2 : folders.length === 1;
  if (!isRight || (out !== undefined && !isJoin)) {
    throw new RangeError(
      `Cannot run data ${action}: expected ${
        isJoin
          ? "two folders or more"
          : action === "merge"
          ? "one folder, or several and --out"
          : "one folder and no --out"
      }: got ${folders.length}${out === undefined ? "" : " and --out"}`,
    );
  }
  const [path] = folders as [string];
  if (action === "check") return await check(path, context);
  if (action === "stats") await stats(path, flags, context);
  else if (isJoin) await join(folders, out, context);
  else {
    const store = await openStore(path, context.note);
    reportMerged(await mergeTasks(store), store.name);
  }
  return 0;
}

async function check(
  path: string,
  { progress, signal, note }: TaskContext,
): Promise<number> {
  const folder = openFolder(path);
  using bar = progress({ label: "check", unit: "MB" });
  const result = await checkResiduals(folder, {
    signal,
    onProgress: (bytes, total) =>
      bar.update(Math.round(bytes / 1e6), `of ${formatBytes(total)}`),
  });
  bar.end();
  const { faults, nShards, nTokens, bytes, hasManifest } = result;
  if (!hasManifest) {
    note(
      `"${folder.name}" has no manifest: only the vectors themselves were checked`,
    );
  }
  for (const fault of faults) console.log(fault);
  if (faults.length > 0) return 1;
  console.log(
    `${formatCount(nTokens)} vectors in ${nShards} ${
      nShards === 1 ? "shard" : "shards"
    } (${formatBytes(bytes)}) are as they should be: ${folder.name}`,
  );
  return 0;
}

async function join(
  paths: readonly string[],
  out: string,
  { progress, signal, note }: TaskContext,
): Promise<void> {
  const folders = paths.map(openFolder);
  // Before the new folder is made.
  const manifests = await Promise.all(folders.map(openWhole));
  const store = await openStore(out, note);
  using bar = progress({ label: "merge", unit: "MB" });
  const merged = await joinFolders(folders, store, {
    fingerprint: await fingerprint(
      manifests.map(({ shards }) => shards.map(({ sha256 }) => sha256)),
    ),
    onProgress: (bytes) => bar.update(Math.round(bytes / 1e6)),
    signal,
  });
  bar.end();
  reportMerged(merged, store.name);
}

function reportMerged(
  { n_tokens, n_documents, shards }: ResidualManifest,
  out: string,
): void {
  console.log(
    `${formatCount(n_tokens)} vectors of ${
      formatCount(n_documents)
    } documents in ${shards.length} shards: ${out}`,
  );
}

async function stats(
  path: string,
  { plot, json }: Flags,
  { progress, signal }: TaskContext,
): Promise<void> {
  const ending = plot === undefined ? undefined : extname(plot);
  if (ending !== undefined && ![".svg", ".html"].includes(ending)) {
    throw new RangeError(
      `Cannot draw "${plot}": expected a file that ends in .svg or .html: got ${
        ending || "no ending"
      }`,
    );
  }
  // Before the vectors are measured.
  const file = plot === undefined ? undefined : userPath(plot);
  const folder = await ResidualFolder.open(openFolder(path));
  using bar = progress({
    label: "measure",
    unit: "vectors",
    total: folder.manifest.n_tokens,
  });
  let n = 0;
  const measured = await residualStats(folder, {
    signal,
    onRows: (rows) => bar.update(n += rows),
  });
  bar.end();
  if (file !== undefined) {
    const text = ending === ".svg"
      ? statsPlot(measured)
      : statsPage(folder.name, measured);
    await writeAtomic(file, text);
  }
  const { manifest } = folder;
  console.log(
    json
      ? JSON.stringify({
        model: manifest.model.name ?? null,
        hookPoint: manifest.hookPoint ?? null,
        ...measured,
      })
      : describeStats(manifest, measured),
  );
}

/** The task, for the command line. */
export const DATA: TaskSpec<typeof FLAGS> = {
  name: "data",
  description: "Checks, merges or measures folders of collected residuals.",
  afterInterrupt: "the same command starts over, or goes on where it copied",
  flags: FLAGS,
  positionals: ["action", "folders"],
};

if (import.meta.main) await runTask(DATA, dataTask);
