import { deepEqual, equal, match, ok } from "node:assert/strict";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { directory } from "../../core/files.ts";
import { SaeFile } from "../../core/sae_file.ts";
import { localStore } from "../../tasks/local_store.ts";
import { blockFile, runTask, scratchFolder, startTask } from "./run_task.ts";
import { collectSmall, SMALL_RECIPE, trainSmall } from "./small_sae.ts";

const WORDS = ["--residuals=residuals", ...SMALL_RECIPE] as const;

/** Lines of metrics.jsonl. */
function linesOf(path: string): Record<string, number>[] {
  return Deno.readTextFileSync(path).trimEnd().split("\n")
    .map((line) => JSON.parse(line));
}

/** What must be the same in two runs of one recipe: bytes, and metrics without what depends on the clock. */
function contentOf(path: string): unknown {
  if (!path.endsWith("metrics.jsonl")) return Deno.readFileSync(path);
  return linesOf(path).map(({ tokensPerSecond, ms, ...line }) => {
    ok(tokensPerSecond! > 0 && ms !== undefined, path);
    return line;
  });
}

Deno.test("train writes an SAE with its measurements, metrics and settings", async () => {
  using folder = scratchFolder();
  const cwd = folder.path;
  await collectSmall(cwd, "residuals");
  const run = await runTask(["train", ...WORDS, "--out=sae"], { cwd });
  equal(run.code, 0, run.stderr);
  match(
    run.stdout,
    /^FVU 0\.\d+, L0 \d+\.\d+, \d+\.\d+ % dead on 200 vectors that were held out\nSAE with 64 features: .*\/sae\n$/,
  );
  match(run.stderr, /^memory +where +bytes\n/m);
  // Two matrices of 64 features times 192, and biases of 64 and 192, in f32; two moments of each.
  match(run.stderr, /^weights +host, as GPU +99\.3 kB$/m);
  match(run.stderr, /^moments \(f32\) +host, as GPU +199 kB$/m);
  const out = join(cwd, "sae");
  const sae = await SaeFile.open(directory(out));
  const { metadata } = sae;
  deepEqual([sae.d_model, sae.d_sae, metadata.hookPoint, metadata.modelName], [
    192,
    64,
    "resid_post[3]",
    "tiny-olmo2",
  ]);
  equal(metadata.nTokensTrained, 30 * 64);
  equal(metadata.recipe?.["lr"], 0.003);
  const featureMax = await sae.featureMax();
  ok(featureMax && featureMax.some((max) => max > 0));
  ok(await sae.logDensity());
  const metrics = linesOf(join(out, "metrics.jsonl"));
  deepEqual(metrics.map(({ step }) => step), [0, 10, 20, 29]);
  ok(metrics.at(-1)!.loss! < metrics[0]!.loss!);
  const settings = JSON.parse(Deno.readTextFileSync(join(out, "train.json")));
  deepEqual([settings.steps, settings.lambda, settings.out], [30, 1, "sae"]);
  ok(!existsSync(join(out, "checkpoint.safetensors")));
  // Its own settings, as a file: the same run, which is complete.
  const again = await runTask(["train", "--config=sae/train.json"], { cwd });
  equal(again.code, 0, again.stderr);
  match(again.stderr, /^complete already$/m);
  const other = await runTask(
    ["train", "--config=sae/train.json", "--lambda=2"],
    { cwd },
  );
  equal(other.code, 1);
  match(
    other.stderr,
    /^error: Cannot write to ".*sae": .*got a sae run of another configuration: choose another folder with --out$/m,
  );
});

Deno.test("train stops at Ctrl-C with a checkpoint, and comes to the same SAE when it goes on", async () => {
  using folder = scratchFolder();
  const cwd = folder.path;
  await collectSmall(cwd, "residuals");
  const long = ["--steps=150", "--metrics-every=1"];
  await trainSmall(cwd, "straight", ...long);
  const child = startTask(["train", ...WORDS, ...long, "--out=sae"], { cwd });
  const output = child.output();
  const metrics = join(cwd, "sae", "metrics.jsonl");
  for (let waited = 0; waited < 60_000 && !existsSync(metrics); waited += 2) {
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
  child.kill("SIGINT");
  const { code, stderr } = await output;
  const text = new TextDecoder().decode(stderr);
  equal(code, 130, text);
  match(
    text,
    /\nstopped by Ctrl-C: the same command goes on from the checkpoint\n$/,
  );
  ok(existsSync(join(cwd, "sae", "checkpoint.safetensors")));
  ok(!existsSync(join(cwd, "sae", "cfg.json")));
  await trainSmall(cwd, "sae", ...long);
  const names = ["sae_weights.safetensors", "feature_max.safetensors"];
  for (const name of [...names, "metrics.jsonl", "cfg.json"]) {
    deepEqual(
      contentOf(join(cwd, "sae", name)),
      contentOf(join(cwd, "straight", name)),
      name,
    );
  }
});

Deno.test("train goes on from its checkpoint after kill -9 and after a full disk", async () => {
  using folder = scratchFolder();
  const cwd = folder.path;
  await collectSmall(cwd, "residuals");
  const long = ["--steps=150", "--metrics-every=1", "--checkpoint-every=25"];
  await trainSmall(cwd, "straight", ...long);
  const words = ["train", ...WORDS, ...long, "--out=sae"] as const;
  const obstacle = blockFile(
    join(cwd, "straight"),
    join(cwd, "sae"),
    "train.json",
  );
  const full = await runTask(words, { cwd });
  equal(full.code, 1);
  match(
    full.stderr,
    /^error: Cannot write ".*\/sae\/train\.json": [^\n]+\n$/m,
  );
  Deno.removeSync(obstacle);
  const child = startTask(words, { cwd });
  const output = child.output();
  const checkpoint = join(cwd, "sae", "checkpoint.safetensors");
  for (let waited = 0; waited < 60_000 && !existsSync(checkpoint); waited++) {
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  child.kill("SIGKILL");
  equal((await output).code, 137);
  ok(!existsSync(join(cwd, "sae", "cfg.json")));
  await trainSmall(cwd, "sae", ...long);
  const names = (of: string): string[] =>
    Array.from(Deno.readDirSync(join(cwd, of)), ({ name }) => name).sort();
  deepEqual(names("sae"), names("straight"));
  for (const name of names("sae")) {
    if (name === "train.json") continue; // says another --out
    deepEqual(
      contentOf(join(cwd, "sae", name)),
      contentOf(join(cwd, "straight", name)),
      name,
    );
  }
});

Deno.test("train refuses bad input in one line and writes nothing", async () => {
  using folder = scratchFolder();
  const cwd = folder.path;
  await collectSmall(cwd, "residuals", "--tokens=300");
  Deno.mkdirSync(join(cwd, "empty"));
  Deno.mkdirSync(join(cwd, "cut"));
  for (const { name } of Deno.readDirSync(join(cwd, "residuals"))) {
    Deno.copyFileSync(join(cwd, "residuals", name), join(cwd, "cut", name));
  }
  Deno.truncateSync(join(cwd, "cut", "shard_00000.parquet"), 1000);
  await using _ = await (await localStore(join(cwd, "taken"))).lock("all");
  const cases: [string[], RegExp][] = [
    [
      ["--residuals=none"],
      /Cannot open folder ".*none": no such file or folder/,
    ],
    [
      ["--residuals=empty"],
      /Cannot open residuals in ".*empty": .*collect them first/,
    ],
    [
      ["--residuals=cut"],
      /Cannot read ".*shard_00000\.parquet": expected \d+ bytes .*got 1000/,
    ],
    [
      ["--hold-out=300"],
      /Cannot train on ".*": expected more than the 300 vectors/,
    ],
    [
      ["--out=taken", "--batch=64"],
      /Cannot write to ".*taken": process \d+ on .+ is writing there: wait/,
    ],
    [["--lr=0"], /Cannot read "flags of train": field "lr"/],
    [["--beta1=1"], /Cannot read "flags of train": field "betas\.0"/],
    [["--steps=1.5"], /expected --steps to be a whole number/],
    [["--lambda=-1"], /expected --lambda to be 0 or more: got -1/],
  ];
  const runs = cases.map(async ([words, message]) => {
    const before = ["--residuals=residuals", "--hold-out=100", "--out=sae"];
    const flags = before.filter((flag) =>
      !words.some((word) => word.split("=")[0] === flag.split("=")[0])
    );
    const run = await runTask(["train", ...flags, ...words], { cwd });
    equal(run.code, 1, words.join(" "));
    equal(run.stdout, "");
    match(run.stderr, new RegExp(`^error: .*${message.source}.*\n$`, "m"));
  });
  await Promise.all(runs);
  ok(!existsSync(join(cwd, "sae")));
  deepEqual([...Deno.readDirSync(join(cwd, "taken"))].map(({ name }) => name), [
    ".all.lock",
  ]);
});
