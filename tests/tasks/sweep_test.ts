import { deepEqual, equal, match, ok } from "node:assert/strict";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { localStore } from "../../tasks/local_store.ts";
import { runTask, scratchFolder, startTask, type TaskRun } from "./run_task.ts";
import { collectSmall } from "./small_sae.ts";

const RECIPE = [
  "--residuals=residuals",
  "--d-sae=64",
  "--batch=64",
  "--steps=5",
  "--hold-out=200",
] as const;

/** A sweep into `cwd/sweep`; later flags win. */
function sweep(cwd: string, ...flags: string[]): Promise<TaskRun> {
  return runTask(["sweep", ...RECIPE, "--out=sweep", ...flags], { cwd });
}

function readJson(...path: string[]): Record<string, unknown>[] {
  return JSON.parse(Deno.readTextFileSync(join(...path)));
}

Deno.test("sweep trains a grid over a config, skips what is there, and adds points to it", async () => {
  using folder = scratchFolder();
  const cwd = folder.path;
  await collectSmall(cwd, "residuals");
  Deno.writeTextFileSync(
    join(cwd, "base.json"),
    JSON.stringify({ steps: 7, lr: 0.002 }),
  );
  const words = ["--config=base.json", "--grid=lambda=0.5,2"];
  const first = await sweep(cwd, ...words, "--jobs=2");
  equal(first.code, 0, first.stdout + first.stderr);
  match(
    first.stdout,
    /^\[\d\/2\] lambda=0\.5: FVU \d\.\d+, L0 \d+\.\d+, \d+\.\d+ % dead, \d+\.\d s$/m,
  );
  match(first.stdout, /^lambda +FVU +L0 +dead % +steps +time$/m);
  const results = readJson(cwd, "sweep", "results.json");
  deepEqual(
    results.map(({ name, status, steps }) => [name, status, steps]),
    [["lambda=0.5", "complete", 5], ["lambda=2", "complete", 5]],
  );
  // Flags win over the file, the grid over both; the file's other values stay.
  const settings = JSON.parse(
    Deno.readTextFileSync(join(cwd, "sweep", "lambda=2", "train.json")),
  );
  deepEqual([settings.steps, settings.lr, settings.lambda], [5, 0.002, 2]);
  const manifest = JSON.parse(
    Deno.readTextFileSync(join(cwd, "sweep", "lambda=2", "manifest.json")),
  );
  equal(results[1]!["fvu"], manifest.heldOut.fvu);
  match(
    Deno.readTextFileSync(join(cwd, "sweep", "results.csv")),
    /^lambda=2,/m,
  );
  match(Deno.readTextFileSync(join(cwd, "sweep", "sweep.html")), /<svg /);
  const more = await sweep(cwd, ...words, "--grid=seed=0,1");
  equal(more.code, 0, more.stderr);
  const again = await sweep(cwd, ...words, "--grid=seed=0,1");
  equal(again.stdout.match(/, complete already$/gm)?.length, 6);
  equal(readJson(cwd, "sweep", "results.json").length, 6);
  const other = await sweep(cwd, ...words, "--lr=0.1");
  match(
    other.stderr,
    /^error: .*got a sweep run of another configuration: choose another folder with --out$/m,
  );
});

Deno.test("sweep goes on after a run that fails, says why, and tries it again", async () => {
  using folder = scratchFolder();
  const cwd = folder.path;
  await collectSmall(cwd, "here");
  const words = ["--grid=residuals=missing,here"];
  const run = await sweep(cwd, ...words);
  equal(run.code, 1);
  match(run.stdout, /^\[1\/2\] residuals=missing: failed: Cannot .*missing/m);
  match(run.stdout, /^\[2\/2\] residuals=here: FVU /m);
  match(run.stdout, /^failed: residuals=missing: Cannot .*missing/m);
  await collectSmall(cwd, "missing");
  const again = await sweep(cwd, ...words);
  equal(again.code, 0, again.stdout);
  match(again.stdout, /^\[1\/2\] residuals=missing: FVU /m);
});

Deno.test("sweep measures the cross-entropy recovered, also of runs that were trained before", async () => {
  using folder = scratchFolder();
  const cwd = folder.path;
  await collectSmall(cwd, "residuals");
  await sweep(cwd, "--grid=lambda=1");
  const words = ["--eval-text=storybook:102:4", "--eval-documents=3"];
  const run = await sweep(cwd, "--grid=lambda=1", ...words);
  equal(run.code, 0, run.stdout + run.stderr);
  match(run.stdout, /^\[1\/1\] lambda=1: .*CE recovered -?\d\.\d+/m);
  const [result] = readJson(cwd, "sweep", "results.json");
  const loss = result!["loss"] as Record<string, number>;
  ok(loss["recoveredFromZero"]! < 1 && loss["ceSae"]! > loss["ceModel"]!);
  const page = Deno.readTextFileSync(join(cwd, "sweep", "sweep.html"));
  equal(page.match(/<svg /g)?.length, 2);
});

Deno.test("sweep stops at Ctrl-C and goes on with what is left", async () => {
  using folder = scratchFolder();
  const cwd = folder.path;
  await collectSmall(cwd, "residuals");
  const words = ["--steps=300", "--metrics-every=1", "--grid=seed=0,1"];
  const child = startTask(
    ["sweep", ...RECIPE, "--out=sweep", ...words],
    { cwd },
  );
  const output = child.output();
  const started = join(cwd, "sweep", "seed=0", "metrics.jsonl");
  let hasEnded = false;
  child.status.then(() => hasEnded = true);
  while (!hasEnded && !existsSync(started)) {
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  if (!hasEnded) child.kill("SIGINT"); // else its output tells why
  const { code, stdout, stderr } = await output;
  const text = new TextDecoder().decode(stderr);
  equal(code, 130, new TextDecoder().decode(stdout) + text);
  match(text, /stopped by Ctrl-C: the same command goes on with what is left/);
  match(new TextDecoder().decode(stdout), /^\[1\/2\] seed=0: stopped$/m);
  ok(existsSync(join(cwd, "sweep", "seed=0", "checkpoint.safetensors")));
  ok(!existsSync(join(cwd, "sweep", "seed=1")));
  const merged = await runTask(["sweep", "--merge=sweep"], { cwd });
  equal(merged.code, 1);
  match(merged.stdout, /^unfinished: seed=0$/m);
  const run = await sweep(cwd, ...words);
  equal(run.code, 0, run.stdout);
  const log = Deno.readTextFileSync(join(cwd, "sweep", "seed=0.log"));
  equal(log.match(/^\$ \.\/ocs train /gm)?.length, 2);
});

Deno.test("sweep refuses wrong grids and places before it trains", async () => {
  using folder = scratchFolder();
  const cwd = folder.path;
  const refused: [flags: string[], message: RegExp][] = [
    [[], /^error: .*expected --grid FLAG=VALUES at least once: got none/m],
    [["--grid=gpu=0,1"], /^error: .*a flag of train that can vary: got --gpu/m],
    [["--grid=lambda=1", "--gpus=0,"], /^error: .*--gpus to be indices/m],
    [["--task=0"], /^error: Cannot open /m],
    [["--grid=lambda=1", "--out=taken"], /^error: .*taken": process \d+ on /m],
  ];
  await using _ = await (await localStore(join(cwd, "taken"))).lock("all");
  for (const [flags, message] of refused) {
    const run = await sweep(cwd, ...flags);
    equal(run.code, 1, flags.join(" "));
    match(run.stderr, message);
  }
});
