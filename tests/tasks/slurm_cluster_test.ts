/** The whole way of a collection through Slurm, on a cluster that the test starts. */
import { deepEqual, equal, match } from "node:assert/strict";
import { join } from "node:path";
import { runTask, scratchFolder } from "./run_task.ts";
import { SlurmCluster, whyNoCluster } from "./slurm_cluster.ts";

/** For everything; the test takes a tenth of it on two slow cores. */
const PATIENCE_MS = 480_000;

/** Once is enough: what differs between drivers is not Slurm's. */
const WHY_NOT = Deno.env.has("VK_DRIVER_FILES")
  ? "only on the default driver"
  : whyNoCluster();

/** Three shares, of which the middle one takes long enough to be disturbed. */
const COLLECT = [
  "collect",
  "--text=text.jsonl",
  "--hook=resid_post[0]",
  "--shard-rows=256",
  "--pass-tokens=256",
  "--tasks=3",
] as const;

function writeText(path: string): void {
  const document = (i: number): string => {
    const nSentences = i >= 256 && i < 512 ? 12 : 1;
    return `Story ${i}. ${"The dog ran home. ".repeat(nSentences)}`;
  };
  const lines = Array.from(
    { length: 530 },
    (_, i) => JSON.stringify({ text: document(i) }),
  );
  Deno.writeTextFileSync(path, lines.join("\n"));
}

/** Whether the middle share has written something, and has more to do. */
function isUnderWay(folder: string): boolean {
  try {
    const manifest = join(folder, "manifest_001-of-003.json");
    const { shards, done } = JSON.parse(Deno.readTextFileSync(manifest));
    return shards.length > 0 && !done;
  } catch {
    return false; // not there yet
  }
}

function hasFile(path: string): boolean {
  try {
    return Deno.lstatSync(path).isFile;
  } catch {
    return false;
  }
}

/** Name and content of every file. */
function filesOf(folder: string): Map<string, string> {
  return new Map(
    [...Deno.readDirSync(folder)].map(({ name }) => name)
      .filter((name) => !name.startsWith(".")).sort()
      .map((name) => [name, Deno.readFileSync(join(folder, name)).toBase64()]),
  );
}

Deno.test({
  name:
    `collect --engine slurm goes on after a requeue, merges, and writes what processes of one machine write${
      WHY_NOT === undefined ? "" : ` (skipped: ${WHY_NOT})`
    }`,
  ignore: WHY_NOT !== undefined,
  fn: async () => {
    using scratch = scratchFolder();
    using daemons = scratchFolder();
    const deadline = Date.now() + PATIENCE_MS;
    const cwd = scratch.path;
    writeText(join(cwd, "text.jsonl"));
    await using cluster = await SlurmCluster.start(daemons.path);
    const submitted = await runTask(
      [...COLLECT, "--engine=slurm", "--out=by slurm"],
      { cwd, env: cluster.env },
    );
    equal(submitted.code, 0, submitted.stderr);
    match(submitted.stdout, /^submitted 3 jobs as array 1, and behind it job /);
    const folder = join(cwd, "by slurm");
    await cluster.until(
      deadline,
      "a share under way",
      () => isUnderWay(folder),
    );
    await cluster.tell("requeue", "1_1");
    // While it waits to be started again, what it should come to.
    const local = await runTask([...COLLECT, "--jobs=2", "--out=here"], {
      cwd,
    });
    equal(local.code, 0, local.stderr);
    await cluster.until(deadline, "the merged manifest", () => {
      return hasFile(join(folder, "manifest.json"));
    });
    match(await cluster.ask("show", "job", "1_1"), / Restarts=1 /);
    const log = Deno.readTextFileSync(
      join(cwd, "by slurm.jobs", "slurm-1_1.log"),
    );
    match(log, /^stopped by SIGTERM/m);
    deepEqual(filesOf(folder), filesOf(join(cwd, "here")));
  },
});
