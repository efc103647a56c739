import { deepEqual, equal, match } from "node:assert/strict";
import { join } from "node:path";
import { directory } from "../../core/files.ts";
import { ResidualFolder } from "../../core/residuals.ts";
import { madeFolder } from "../train/made_residuals.ts";
import { runTask, scratchFolder } from "./run_task.ts";

/** Writes files into a folder. */
function write(
  folder: string,
  files: Readonly<Record<string, Uint8Array>>,
): void {
  Deno.mkdirSync(folder, { recursive: true });
  for (const [name, bytes] of Object.entries(files)) {
    Deno.writeFileSync(join(folder, name), bytes);
  }
}

Deno.test("data check says that a folder is right, or each fault in a line and ends with code 1", async () => {
  using folder = scratchFolder();
  const cwd = folder.path;
  write(join(cwd, "r"), madeFolder({ shards: [30, 20] }));
  const right = await runTask(["data", "check", "r", "--quiet"], { cwd });
  deepEqual([right.code, right.stderr], [0, ""]);
  match(
    right.stdout,
    /^50 vectors in 2 shards \([\d.]+ kB\) are as they should be: .*\/r\n$/,
  );
  Deno.truncateSync(join(cwd, "r", "shard-0.parquet"), 99);
  Deno.removeSync(join(cwd, "r", "shard-1.parquet"));
  const wrong = await runTask(["data", "check", "r", "--quiet"], { cwd });
  deepEqual([wrong.code, wrong.stderr], [1, ""]);
  match(
    wrong.stdout,
    /^[^\n]+shard-0\.parquet[^\n]+\n[^\n]+shard-0\.parquet[^\n]+\n[^\n]+shard-1\.parquet[^\n]+\n$/,
  );
});

Deno.test("data merge makes one folder of the tasks of a collection, and of several folders", async () => {
  using folder = scratchFolder();
  const cwd = folder.path;
  for (const index of [0, 1]) {
    const manifest = { shard: { index, count: 2 } };
    write(join(cwd, "tasks"), madeFolder({ shards: [10], manifest }));
  }
  write(join(cwd, "more"), madeFolder({ shards: [5] }));
  const runs: [string[], RegExp][] = [
    [["tasks"], /^20 vectors of 4 documents in 2 shards: .*\/tasks\n$/],
    [
      ["tasks", "more", "--out=all"],
      /^25 vectors of 6 documents in 3 shards: .*\/all\n$/,
    ],
  ];
  for (const [words, stdout] of runs) {
    const run = await runTask(["data", "merge", ...words], { cwd });
    equal(run.code, 0, run.stderr);
    match(run.stdout, stdout);
  }
  const { manifest } = await ResidualFolder.open(directory(join(cwd, "all")));
  deepEqual([manifest.n_tokens, manifest.done], [25, true]);
  const names = Array.from(Deno.readDirSync(join(cwd, "all")), (e) => e.name);
  deepEqual(names.sort(), [
    "manifest.json",
    "shard_00000.parquet",
    "shard_00001.parquet",
    "shard_00002.parquet",
  ]);
});

Deno.test("data stats prints norms, and draws them", async () => {
  using folder = scratchFolder();
  const cwd = folder.path;
  write(join(cwd, "r"), madeFolder({ shards: [30, 20] }));
  const words = ["stats", "r", "--plot=norms.svg"] as const;
  const run = await runTask(["data", ...words], { cwd });
  equal(run.code, 0, run.stderr);
  match(run.stdout, /^resid_post\[3\] of tiny\n\nmeasure +value\n/);
  match(run.stdout, /\nposition +vectors +mean norm\n[-\s]+\n +0 +5 /);
  match(Deno.readTextFileSync(join(cwd, "norms.svg")), /^<svg .*<\/svg>$/s);
  const json = await runTask(
    ["data", "stats", "r", "--json", "--plot=norms.html"],
    { cwd },
  );
  const { n, byPosition, hookPoint } = JSON.parse(json.stdout);
  deepEqual([n, byPosition.length, hookPoint], [50, 10, "resid_post[3]"]);
  match(Deno.readTextFileSync(join(cwd, "norms.html")), /<svg [^]*<table>/);
});

Deno.test("data refuses what it cannot do in one line", async () => {
  using folder = scratchFolder();
  const cwd = folder.path;
  write(join(cwd, "r"), madeFolder({ shards: [5] }));
  write(join(cwd, "s"), madeFolder({ shards: [6] }));
  Deno.mkdirSync(join(cwd, "empty"));
  const cases: [string[], RegExp][] = [
    [[], /expected --action STRING: got nothing/],
    [
      ["mend", "r"],
      /expected ACTION to be check or merge or stats: got "mend"/,
    ],
    [["check"], /expected one folder and no --out: got 0$/],
    [["merge", "r", "r"], /expected one folder, or several and --out: got 2$/],
    [
      ["merge", "r", "--out=x"],
      /expected two folders or more: got 1 and --out$/,
    ],
    [
      ["merge", "r"],
      /expected manifests of the tasks of one collection: got none/,
    ],
    [
      ["merge", "r", "r", "--out=x"],
      /Cannot merge ".*\/r": expected shards that no other folder has/,
    ],
    [
      ["merge", "r", "empty", "--out=x"],
      /Cannot merge ".*\/empty": expected manifest\.json: got none: where tasks/,
    ],
    [
      ["merge", "r", "s", "--out=r"],
      /Cannot write to ".*\/r": .*another configuration/,
    ],
    [
      ["stats", "r", "--plot=x.png"],
      /expected a file that ends in \.svg or \.html: got \.png/,
    ],
    [
      ["stats", "empty", "--plot=s3://b/x.svg"],
      /Cannot use "s3:\/\/b\/x\.svg" here: expected a path of this machine/,
    ],
    [
      ["stats", "empty"],
      /expected manifest\.json or parquet files: got neither/,
    ],
    [["check", "missing"], /Cannot open folder ".*missing"/],
  ];
  const runs = cases.map(async ([words, message]) => {
    const { code, stdout, stderr } = await runTask(["data", ...words], { cwd });
    deepEqual([code, stdout], [1, ""], words.join(" "));
    match(
      stderr,
      new RegExp(`^error: .*${message.source.replace(/\$$/, "")}.*\n$`),
    );
  });
  await Promise.all(runs);
  deepEqual(
    Array.from(Deno.readDirSync(cwd), ({ name }) => name).sort(),
    ["empty", "r", "s"],
  );
});
