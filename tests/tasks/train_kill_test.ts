/** Runs of `./ocs train` that are killed at moments that nobody chose. */
import { deepEqual, equal, match, ok } from "node:assert/strict";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { directory } from "../../core/files.ts";
import { openCheckpoint } from "../../train/checkpoint.ts";
import { readMetricsFile } from "../../tasks/metrics_log.ts";
import { untimed } from "../train/small_run.ts";
import { runTask, scratchFolder, startTask } from "./run_task.ts";
import { collectSmall, SMALL_RECIPE, trainSmall } from "./small_sae.ts";

const KILLS = 4;
const CHECKPOINT_EVERY = 9;
const CHECKPOINT = "checkpoint.safetensors";
const wait = (ms: number): Promise<void> =>
  new Promise((resolve) => setTimeout(resolve, ms));

/** Starts the run, and kills it some time after it has trained; whether it was still running. */
async function killed(
  words: readonly [string, ...string[]],
  cwd: string,
  ms: number,
): Promise<boolean> {
  const log = join(cwd, "sae", "metrics.jsonl");
  const size = (): number => existsSync(log) ? Deno.statSync(log).size : 0;
  const before = size();
  const child = startTask(words, { cwd });
  const output = child.output();
  let isOver = false;
  output.then(() => isOver = true);
  while (!isOver && size() === before) await wait(1);
  await wait(ms);
  if (!isOver) child.kill("SIGKILL");
  const { code, stderr } = await output;
  ok(code === 137 || code === 0, new TextDecoder().decode(stderr));
  return code === 137;
}

/** Steps that a run that goes on will have lost. */
async function lostSteps(out: string): Promise<number> {
  const { lines } = readMetricsFile(join(out, "metrics.jsonl"));
  const done = (lines.at(-1)?.step ?? -1) + 1;
  if (!existsSync(join(out, CHECKPOINT))) return done;
  const source = await directory(out).open(CHECKPOINT);
  const { info } = await openCheckpoint(source);
  return done - info.step;
}

Deno.test("train loses few steps when it is killed at any moment, and ends with the bytes of a run that was left alone", async () => {
  using folder = scratchFolder();
  const cwd = folder.path;
  await collectSmall(cwd, "residuals");
  const flags = [
    "--steps=160",
    "--metrics-every=3",
    `--checkpoint-every=${CHECKPOINT_EVERY}`,
    "--target-l0=6",
    "--lambda=3",
    "--resample-every=20",
    "--quiet",
  ];
  await trainSmall(cwd, "straight", ...flags);
  const words = ["--residuals=residuals", "--out=sae", ...SMALL_RECIPE];
  const delays: number[] = [];
  for (let kill = 0; kill < KILLS; kill++) {
    delays.push(Math.floor(150 * Math.random()));
    const label = `killed after ${delays.join(", ")} ms`;
    if (!await killed(["train", ...words, ...flags], cwd, delays.at(-1)!)) {
      break;
    }
    const lost = await lostSteps(join(cwd, "sae"));
    ok(lost <= CHECKPOINT_EVERY, `${label}: lost ${lost} steps`);
  }
  ok(delays.length > 1, "the run ended before it was killed twice");
  await trainSmall(cwd, "sae", ...flags);
  const label = `killed after ${delays.join(", ")} ms`;
  const names = (of: string): string[] =>
    Array.from(Deno.readDirSync(join(cwd, of)), ({ name }) => name).sort();
  deepEqual(names("sae"), names("straight"), label);
  for (const name of names("sae")) {
    if (["train.json", "metrics.jsonl"].includes(name)) continue;
    const [got, want] = ["sae", "straight"].map((of) =>
      Deno.readFileSync(join(cwd, of, name))
    );
    deepEqual(got, want, `${name}, ${label}`);
  }
  const [got, want] = ["sae", "straight"].map((of) =>
    readMetricsFile(join(cwd, of, "metrics.jsonl"))
  );
  equal(got!.nDamaged, 0);
  deepEqual(untimed(got!.lines), untimed(want!.lines), label);
});

Deno.test("train trains every architecture, and what it held out is explained as well as a batch was", async () => {
  using folder = scratchFolder();
  const cwd = folder.path;
  await collectSmall(cwd, "residuals");
  const runs: [string, ...string[]][] = [
    ["topk", "--k=8", "--aux-k=8", "--dead-after=2000"],
    ["batchtopk", "--k=8"],
    ["jumprelu", "--lambda=0.2", "--moments=q8"],
  ];
  for (const [architecture, ...flags] of runs) {
    const out = join(cwd, architecture);
    await trainSmall(
      cwd,
      architecture,
      `--architecture=${architecture}`,
      "--steps=200",
      "--metrics-every=1",
      ...flags,
    );
    const { heldOut } = JSON.parse(
      Deno.readTextFileSync(join(out, "manifest.json")),
    );
    const last = readMetricsFile(join(out, "metrics.jsonl")).lines.slice(-20);
    const mean = (field: "fvu" | "L0"): number =>
      last.reduce((sum, line) => sum + line[field] / last.length, 0);
    const label =
      `${architecture}: FVU ${heldOut.fvu}, L0 ${heldOut.L0}: in training ${
        mean("fvu")
      }, ${mean("L0")}`;
    // A thousand vectors of 16 documents are trained on: others differ from them.
    ok(heldOut.fvu < 1.5 * mean("fvu"), label);
    ok(Math.abs(heldOut.L0 / mean("L0") - 1) < 0.25, label);
    const run = await runTask([
      "eval",
      `--sae=${architecture}`,
      "--residuals=residuals",
      "--last=200",
      "--no-loss",
      "--json",
    ], { cwd });
    equal(run.code, 0, run.stderr);
    equal(JSON.parse(run.stdout).vectors.fvu, heldOut.fvu);
  }
});

Deno.test("train keeps its checkpoint and exits with 75 when the GPU is lost, and goes on when it is back", async () => {
  using folder = scratchFolder();
  const cwd = folder.path;
  await collectSmall(cwd, "residuals");
  const flags = ["--steps=200", "--checkpoint-every=10"];
  await trainSmall(cwd, "straight", ...flags);
  const words = ["--residuals=residuals", "--out=sae", ...SMALL_RECIPE];
  const root = join(import.meta.dirname!, "../..");
  const { code, stderr } = await new Deno.Command(Deno.execPath(), {
    args: [
      ...["run", "--quiet", "--allow-read", "--allow-write", "--allow-env"],
      ...["--allow-sys=systemMemoryInfo", "tests/tasks/lose_gpu.ts"],
      ...[...words, ...flags, "--quiet"],
    ],
    cwd: root,
    env: { INIT_CWD: cwd },
  }).output();
  const text = new TextDecoder().decode(stderr);
  match(
    text,
    /^error: GPU ".*" was lost \(destroyed\): [^\n]*: start again\n$/,
  );
  equal(code, 75);
  ok(existsSync(join(cwd, "sae", CHECKPOINT)));
  ok(!existsSync(join(cwd, "sae", "cfg.json")));
  await trainSmall(cwd, "sae", ...flags);
  const [got, want] = ["sae", "straight"].map((of) =>
    Deno.readFileSync(join(cwd, of, "sae_weights.safetensors"))
  );
  deepEqual(got, want);
});
