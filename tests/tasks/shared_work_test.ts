/** Shares of a collection as processes of this machine, and what of them clusters get. */
import { deepEqual, equal, match } from "node:assert/strict";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { runTask, scratchFolder } from "./run_task.ts";

const COLLECT = [
  "collect",
  "--text=text.jsonl",
  "--hook=resid_post[0]",
  "--out=out dir",
] as const;

/** Two runs of 256 documents, so that two shares have work. */
function writeText(folder: string): void {
  const lines = Array.from(
    { length: 300 },
    (_, i) => JSON.stringify({ text: `Story ${i} is short.` }),
  );
  Deno.writeTextFileSync(join(folder, "text.jsonl"), lines.join("\n"));
}

Deno.test("collect --gpus tells of a share that fails, does the others, and then only what is left", async () => {
  using scratch = scratchFolder();
  const cwd = scratch.path;
  writeText(cwd);
  const folder = join(cwd, "out dir");
  const inTheWay = join(folder, "shard_001-of-002_00000.parquet");
  Deno.mkdirSync(inTheWay, { recursive: true });
  const words = [...COLLECT, "--gpus=0,0"] as const;
  const failed = await runTask(words, { cwd });
  equal(failed.code, 1, failed.stderr);
  match(failed.stderr, /^share 1 of 2 failed: Cannot .*out dir/m);
  match(failed.stderr, /^1 of 2 shares failed: the same command does what/m);
  match(
    failed.stderr,
    /^\[0\/2 on 0\] .* vectors of resid_post\[0\] from 256 /m,
  );
  equal(existsSync(join(folder, "manifest.json")), false);

  // The cluster gets what is left, and what was typed.
  const slurm = [...COLLECT, "--engine=slurm", "--tasks=2", "--dry-run"];
  const dry = await runTask(slurm as ["collect", ...string[]], { cwd });
  equal(dry.code, 0, dry.stderr);
  const script = Deno.readTextFileSync(
    join(cwd, "out dir.jobs", "array.sbatch"),
  );
  match(script, /^#SBATCH --array=1$/m);
  match(
    script,
    /^exec \S+ collect .*--text=\S+\/text\.jsonl .*'--out=out dir' .*--shard="\$SLURM_ARRAY_TASK_ID"\/2$/m,
  );
  Deno.removeSync(inTheWay);
  const done = await runTask(words, { cwd });
  equal(done.code, 0, done.stderr);
  match(done.stderr, /^1 of 2 shares are done already$/m);
  const manifest = JSON.parse(
    Deno.readTextFileSync(join(folder, "manifest.json")),
  );
  deepEqual([manifest.n_documents, manifest.done], [300, true]);
  const over = await runTask(slurm as ["collect", ...string[]], { cwd });
  equal(over.code, 0, over.stderr);
  match(
    over.stdout,
    /^nothing is left to submit: \.\/ocs data merge 'out dir' /,
  );
});

Deno.test("collect --engine kubernetes prints Jobs whose pods do what was typed, and opens nothing", async () => {
  const run = await runTask([
    "collect",
    "--engine=kubernetes",
    "--tasks=8",
    "--image=ocs",
    "--volume=claim:/data",
    "--text=/data/not here",
    "--out=/data/residuals",
  ]);
  equal(run.code, 0, run.stderr);
  const { items: [shares] } = JSON.parse(run.stdout);
  const { completions, template } = shares.spec;
  equal(completions, 8);
  const { command } = template.spec.containers[0];
  deepEqual(command.slice(0, 2), ["./ocs", "collect"]);
  equal(command.includes("--text=/data/not here"), true);
  const isTheirs = (word: string): boolean => /--(tasks|engine|im)/.test(word);
  equal(command.some(isTheirs), false);
  match(run.stderr, /^kubectl wait /m);
});

Deno.test("collect refuses engines without their flags, and wrong GPUs, before it writes", async () => {
  using scratch = scratchFolder();
  const cwd = scratch.path;
  writeText(cwd);
  const cases: [flags: string[], message: RegExp][] = [
    [["--engine=slurm"], /^error: Cannot share the work: .*--tasks NUMBER/m],
    [["--gpus=0,"], /^error: Cannot choose GPUs: expected --gpus /m],
    [["--tasks=2", "--shard=0/2"], /^error: .*leave out --shard 0\/2$/m],
    [["--shard=2/2"], /^error: Cannot choose a shard: .*"2\/2"/m],
    [
      ["--engine=slurm", "--tasks=2", "--dry-run", "--text=none.jsonl"],
      /^error: Cannot .*none\.jsonl/m,
    ],
  ];
  for (const [flags, message] of cases) {
    const run = await runTask([...COLLECT, ...flags], { cwd });
    equal(run.code, 1);
    match(run.stderr, message);
  }
  deepEqual([...Deno.readDirSync(cwd)].map(({ name }) => name), ["text.jsonl"]);
});
