/** `convert` as a person runs it. */
import { deepEqual, equal, match, ok } from "node:assert/strict";
import { createHash } from "node:crypto";
import { join } from "node:path";
import { writeAtomic } from "../../core/files.ts";
import { saveFeatureMeasurements } from "../../core/sae_file.ts";
import { judgeFit } from "../../tasks/convert_report.ts";
import { makeSae } from "./made_sae.ts";
import { runTask, scratchFolder, type TaskRun } from "./run_task.ts";
import { collectSmall } from "./small_sae.ts";

const ROOT = new URL("../..", import.meta.url).pathname;
const EMBEDDED = join(ROOT, "models/tiny-olmo2-sae");
const FIXTURE = join(ROOT, "tests/fixtures/ocs-checkpoint");
const MLP = join(ROOT, "tests/fixtures/sae-formats/GatedAutoEncoder");

/** Names in a folder, sorted. */
function namesIn(folder: string): string[] {
  return Array.from(Deno.readDirSync(folder), ({ name }) => name).sort();
}

/** Runs `convert`, which must succeed. */
async function convert(cwd: string, ...flags: string[]): Promise<string> {
  const run = await runTask(["convert", ...flags, "--quiet"], { cwd });
  equal(run.stderr, "");
  equal(run.code, 0);
  return run.stdout;
}

Deno.test("convert takes the embedded SAE to open-concept-steering and back, and its weights are the same bytes", async () => {
  using scratch = scratchFolder();
  const cwd = scratch.path;
  const said = await convert(
    cwd,
    "--to=open-concept-steering",
    "--out=deep/there",
  );
  match(said, /layout +saelens\n/);
  match(said, /weights +sae_weights\.safetensors, 2\.37 MB\n/);
  match(said, /architecture +relu\n/);
  match(said, /hook point +resid_post\[3\]\n/);
  match(
    said,
    /wrote open-concept-steering to .*sae_config\.json \(6\.27 MB\)\n$/,
  );
  await convert(cwd, "--sae=deep/there", "--to=saelens", "--out=back");
  deepEqual(namesIn(cwd), ["back", "deep"]); // nothing beside them
  deepEqual(namesIn(join(cwd, "back")), [
    "cfg.json",
    "feature_max.safetensors",
    "features.jsonl",
    "labels.json",
    "sae_weights.safetensors",
    "sparsity.safetensors",
  ]);
  for (const file of namesIn(join(cwd, "back"))) {
    if (file === "cfg.json") continue;
    deepEqual(
      Deno.readFileSync(join(cwd, "back", file)),
      Deno.readFileSync(join(EMBEDDED, file)),
      file,
    );
  }
  const config = (folder: string, file = "cfg.json") =>
    JSON.parse(Deno.readTextFileSync(join(folder, file)));
  const back = config(join(cwd, "back"));
  const { convertedFrom, ...ours } = back.metadata.open_concept_steering;
  const embedded = config(EMBEDDED);
  deepEqual(ours, embedded.metadata.open_concept_steering);
  const there = Deno.readFileSync(
    join(cwd, "deep/there/sae_weights.safetensors"),
  );
  deepEqual(convertedFrom, {
    layout: "open-concept-steering",
    sha256: createHash("sha256").update(there).digest("hex"),
  });
  const steered = await runTask([
    "steer",
    "What should I do today?",
    "--steer=baseball=2x",
    "--sae=deep/there",
    "--quiet",
  ], { cwd });
  equal(steered.stdout, "My favorite thing is a ninth inning rally.\n");
});

Deno.test("convert only describes an SAE without --to, and says what its files do not tell", async () => {
  using scratch = scratchFolder();
  const said = await convert(scratch.path, `--sae=${FIXTURE}`);
  match(said, /layout +open-concept-steering\n/);
  match(said, /d_model +16\nd_sae +40\n/);
  match(said, /model +not told\n/);
  match(said, /measured +nothing\n$/);
  const elsewhere = await convert(scratch.path, `--sae=${MLP}`);
  match(elsewhere, /hook point +mlp_out \(out\)\n/);
  deepEqual(namesIn(scratch.path), []);
});

Deno.test("convert shows what a stranger's files say without what moves a terminal's cursor", async () => {
  using scratch = scratchFolder();
  const cwd = scratch.path;
  await makeSae(cwd, { metadata: { modelName: "a\u001b[2Jb\u009b2Kc" } });
  match(await convert(cwd, "--sae=."), /\nmodel +a \[2Jb 2Kc\n/);
  const config = join(cwd, "cfg.json");
  const json = Deno.readTextFileSync(config);
  Deno.writeTextFileSync(
    config,
    json.replace("blocks.3.hook_resid_post", "\\u001b[2J").replace(
      "open_concept_steering",
      "x",
    ),
  );
  const run = await runTask(
    ["convert", "--sae=.", "--to=saelens", "--out=o", "--hook=resid_post[3]"],
    { cwd },
  );
  match(run.stderr, /^error: Cannot convert .*: got one of {2}\[2J\n$/);
});

Deno.test("convert takes --hook and --model-name for what the files do not tell", async () => {
  using scratch = scratchFolder();
  const cwd = scratch.path;
  await convert(
    cwd,
    `--sae=${FIXTURE}`,
    "--hook=resid_post[1]",
    "--model-name=half",
    "--to=saelens",
    "--out=out",
  );
  const { metadata } = JSON.parse(
    Deno.readTextFileSync(join(cwd, "out/cfg.json")),
  );
  equal(metadata.hook_name, "blocks.1.hook_resid_post");
  equal(metadata.model_name, "half");
});

Deno.test("convert writes a feature as a control vector", async () => {
  using scratch = scratchFolder();
  const cwd = scratch.path;
  const said = await convert(
    cwd,
    "--to=gguf",
    "--feature=baseball",
    "--strength=2x",
    "--out=v.gguf",
  );
  match(
    said,
    /feature 1019 times 31\.85\S+, added behind block 3 at every position: llama\.cpp --control-vector \S+v\.gguf\n$/,
  );
  const bytes = Deno.readFileSync(join(cwd, "v.gguf"));
  const text = new TextDecoder("latin1").decode(bytes);
  ok(text.startsWith("GGUF") && text.includes("direction.3"));
  // The SAE's rows have norm 1.
  const direction = new Float32Array(bytes.slice(-4 * 192).buffer);
  const norm = Math.hypot(...direction);
  ok(Math.abs(norm - 31.85687) < 1e-3, `norm ${norm}`);
  // A feature that never fired has no strength to take a multiple of.
  Deno.mkdirSync(join(cwd, "made"));
  await makeSae(join(cwd, "made"));
  await saveFeatureMeasurements(
    (file, content) => writeAtomic(join(cwd, "made", file), content),
    { featureMax: new Float32Array(64), density: new Float32Array(64) },
  );
  const dead = await runTask([
    "convert",
    "--sae=made",
    "--to=gguf",
    "--feature=1",
    "--strength=2x",
    "--out=0.gguf",
  ], { cwd });
  match(dead.stderr, /feature 1 in ".*made": got 0, as it never fired: give/);
  deepEqual(namesIn(cwd), ["made", "v.gguf"]);
});

Deno.test("convert refuses what cannot be done, in one line, and writes nothing", async () => {
  using scratch = scratchFolder();
  const cwd = scratch.path;
  Deno.mkdirSync(join(cwd, "taken"));
  Deno.writeTextFileSync(join(cwd, "taken/a"), "");
  const gguf = ["--to=gguf", "--out=new.gguf"];
  const cases: readonly (readonly [RegExp, ...string[]])[] = [
    [/expected topk.*got relu/, "--to=sparsify", "--out=new"],
    [/expected --out: got none/, "--to=saelens"],
    [/expected --to beside --out/, "--out=new"],
    [
      /expected no such folder, or an empty one: got one with "a".*--out/,
      "--to=saelens",
      "--out=taken",
    ],
    [
      /expected resid_post\[5\] as asked: got an SAE of resid_post\[3\]/,
      "--to=saelens",
      "--out=new",
      "--hook=resid_post[5]",
    ],
    [/expected --feature and --strength: got no --feature/, ...gguf],
    [/expected nothing there/, "--to=gguf", "--out=taken", "--feature=1"],
    [/a feature from 0 to 1535: got 1536/, ...gguf, "--feature=1536"],
    [/did you mean "baseball"/, ...gguf, "--feature=basebal"],
    [/for layer 0: expected one from 1/, ...gguf, "--feature=1@0"],
    [/expected both --check and --residuals: got no --residuals/, "--check"],
    [
      /expected one of the residual stream: got one of mlp_out \(out\)/,
      `--sae=${MLP}`,
      "--to=saelens",
      "--out=new",
      "--hook=resid_post[3]",
    ],
  ];
  for (const [message, ...flags] of cases) {
    const strength = flags.some((flag) => flag.startsWith("--feature"))
      ? ["--strength=8"]
      : [];
    const words = ["convert", ...flags, ...strength] as const;
    const run: TaskRun = await runTask(words, { cwd });
    match(run.stderr, /^error: Cannot [^\n]+\n$/, flags.join(" "));
    match(run.stderr, message);
    equal(run.stdout, "");
    equal(run.code, 1);
  }
  deepEqual(namesIn(cwd), ["taken"]);
  deepEqual(namesIn(join(cwd, "taken")), ["a"]);
});

Deno.test("convert leaves nothing where an SAE turns out damaged while it is written", async () => {
  using scratch = scratchFolder();
  const cwd = scratch.path;
  const copy = join(cwd, "copy");
  Deno.mkdirSync(copy);
  for (const file of namesIn(EMBEDDED)) {
    Deno.copyFileSync(join(EMBEDDED, file), join(copy, file));
  }
  // W_dec comes first: its last row.
  const path = join(copy, "sae_weights.safetensors");
  const bytes = Deno.readFileSync(path);
  const header = Number(new DataView(bytes.buffer).getBigUint64(0, true));
  const { W_dec } = JSON.parse(
    new TextDecoder().decode(bytes.subarray(8, 8 + header)),
  );
  const end = 8 + header + W_dec.data_offsets[1];
  bytes.set([0, 0, 192, 127], end - 4); // NaN
  Deno.writeFileSync(path, bytes);
  for (const to of ["saelens", "open-concept-steering"]) {
    const run = await runTask(
      ["convert", "--sae=copy", `--to=${to}`, "--out=new", "--quiet"],
      { cwd },
    );
    match(
      run.stderr,
      /^error: Cannot read .*finite values in tensor "W_dec": got NaN at feature 1535: .*\n$/,
    );
    equal(run.code, 1);
    deepEqual(namesIn(cwd), ["copy"]);
  }
});

Deno.test("convert --check says whether an SAE fits residuals, and does not convert one that does not", async () => {
  using scratch = scratchFolder();
  const cwd = scratch.path;
  await collectSmall(cwd, "residuals");
  const check = ["--check", "--residuals=residuals", "--quiet"];
  const good = await runTask(["convert", ...check, "--vectors=500"], { cwd });
  equal(good.code, 0, good.stderr);
  const [, fvu = "1"] =
    /FVU +([\d.]+).*mean of 500 vectors/.exec(good.stdout) ??
      [];
  ok(Number(fvu) < 0.15, good.stdout);
  match(good.stdout, /\n\nNothing speaks against it/);

  Deno.mkdirSync(join(cwd, "made"));
  await makeSae(join(cwd, "made")); // random directions
  const bad = await runTask(
    ["convert", "--sae=made", "--to=saelens", "--out=new", ...check],
    { cwd },
  );
  equal(bad.code, 1, bad.stderr);
  match(bad.stdout, /\n\nThis SAE does not fit these residuals: .*\?\n$/);

  const other = await runTask(["convert", `--sae=${FIXTURE}`, ...check], {
    cwd,
  });
  equal(other.code, 1);
  match(
    other.stderr,
    /^error: Cannot check SAE .* expected d_model 192: got 16: give residuals of its model\n$/,
  );
  deepEqual(namesIn(cwd), ["made", "residuals"]);
});

Deno.test("judgeFit() finds against an SAE that reconstructs nothing, is silent, or dense", () => {
  const cases: readonly (readonly [number, number, boolean, RegExp])[] = [
    [0.1, 30, true, /^Nothing speaks/],
    [0.7, 30, true, /more than half of the variance/],
    [1, 30, false, /no better than their mean does \(FVU 1\.00\)/],
    [Infinity, 30, false, /no better/],
    [NaN, 30, false, /no better/],
    [0.9, 0.2, false, /hardly a feature fires on them \(L0 0\.200\)/],
    [0.9, 0, false, /hardly/],
    [0.1, 600, false, /more than half of its features.*\(L0 600 of 1,000\)/],
  ];
  for (const [fvu, L0, fits, verdict] of cases) {
    const fit = judgeFit({ fvu, L0 }, 1000);
    equal(fit.fits, fits);
    match(fit.verdict, verdict);
  }
});
