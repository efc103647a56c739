/**
 * `export` in this process, on an SAE of random directions and an index of one document.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { fileSource } from "../../core/files.ts";
import { gunzip } from "../../core/gunzip.ts";
import { chunksOf } from "../../core/text_lines.ts";
import { rejectsInOneLine } from "../rejects_in_one_line.ts";
import { openTinyModel } from "../steer/embedded.ts";
import { exportScene, runExport, TEXT } from "./export_scene.ts";
import { D_SAE } from "./made_sae.ts";
import { runTask } from "./run_task.ts";

const LABELS = new Map([
  [1, { label: 'the "dog", or\ta dog', source: "a test" }],
  [40, { label: "never seen" }],
]);

async function readRows(path: string) {
  using file = await fileSource(path);
  const chunks = await Array.fromAsync(
    path.endsWith(".gz") ? gunzip(file) : chunksOf(file),
  );
  const text = await new Blob(chunks.map((chunk) => chunk.slice())).text();
  return text.trimEnd().split("\n").map((line) => JSON.parse(line));
}

Deno.test("export --to neuronpedia writes the tree with features, activations and explanations", async () => {
  using scene = await exportScene({ labels: LABELS });
  const out = join(scene.path, "out");
  const args = ["--sae", scene.sae, "--to", "neuronpedia", "--out", out];
  const source = join(out, "tiny-olmo2", "3-res-64");
  assert.equal(await runExport([...args, "--vectors"]), source);
  assert.deepEqual(
    [...Deno.readDirSync(source)].map(({ name }) => name).sort(),
    [
      "activations",
      "explanations",
      "features",
      "model.jsonl",
      "release.jsonl",
      "source.jsonl",
      "sourceset.jsonl",
    ],
  );
  const [model] = await readRows(join(source, "model.jsonl"));
  assert.deepEqual([model.id, model.dimension, model.layers], [
    "tiny-olmo2",
    192,
    8,
  ]);
  const [row] = await readRows(join(source, "source.jsonl"));
  assert.deepEqual([row.id, row.setName, row.num_prompts, row.dataset], [
    "3-res-64",
    "res-64",
    1,
    "made",
  ]);
  const features = await readRows(join(source, "features/batch-0.jsonl.gz"));
  assert.deepEqual(
    features.map(({ index }) => index),
    Array.from({ length: D_SAE }, (_, i) => String(i)),
  );
  const { tokenizer } = await openTinyModel();
  const ids = tokenizer.encode(TEXT, { addSpecial: false });
  const third = features[3];
  assert.equal(third.maxActApprox, 2.5);
  assert.equal(third.vectorDefaultSteerStrength, 2.5);
  assert.ok(Math.abs(third.frac_nonzero - 1 / ids.length) < 1e-6);
  assert.equal(third.hookName, "blocks.3.hook_resid_post");
  assert.equal(third.vector.length, 192);
  assert.ok(Math.abs(Math.hypot(...third.vector) - 1) < 1e-6);
  assert.equal(third.pos_str.length, 10);
  assert.ok(third.pos_values[0] > 0 && third.neg_values[0] < 0);
  const acts = await readRows(join(source, "activations/batch-0.jsonl.gz"));
  assert.equal(acts.length, ids.length);
  const of = acts.find(({ index }) => index === "3");
  assert.equal(of.tokens[of.maxValueTokenIndex], tokenizer.decode([ids[2]!]));
  assert.equal(of.values[of.maxValueTokenIndex], 2.5);
  assert.equal(of.maxValue, 2.5);
  assert.equal(of.values.length, of.tokens.length);
  assert.ok(acts.every(({ id }) => /^c[0-9a-f]{16}[0-9a-z]{8}$/.test(id)));
  assert.equal(new Set(acts.map(({ id }) => id)).size, acts.length);
  const said = await readRows(join(source, "explanations/batch-0.jsonl.gz"));
  assert.deepEqual(
    said.map(({ index, description, notes }) => [
      index,
      description,
      notes,
    ]),
    [["1", 'the "dog", or\ta dog', "a test"], ["40", "never seen", null]],
  );
});

Deno.test("export writes nothing where there is a folder already, and leaves nothing when it is stopped", async () => {
  using scene = await exportScene();
  const to = ["--sae", scene.sae, "--to", "neuronpedia", "--out"];
  await rejectsInOneLine(
    () => runExport([...to, scene.sae]),
    /Cannot write to ".+": expected no such folder, or an empty one: got one with "cfg.json": choose another with --out/,
  );
  const stopped = AbortSignal.abort(new Error("stopped"));
  const out = join(scene.path, "a", "out");
  await assert.rejects(runExport([...to, out], stopped), /stopped/);
  assert.deepEqual([...Deno.readDirSync(join(scene.path, "a"))], []);
  await rejectsInOneLine(
    () => runExport([...to, out, "--source-set", "../x"]),
    /^TypeError: Cannot export with --source-set "..\/x": expected letters/,
  );
});

Deno.test("export refuses an index of another SAE, and an SAE without one", async () => {
  using scene = await exportScene();
  using other = await exportScene({ metadata: { hookPoint: "resid_post[2]" } });
  const args = [
    "--to",
    "open-concept-steering",
    "--out",
    join(scene.path, "o"),
  ];
  await Deno.remove(join(scene.sae, "features.jsonl"));
  await rejectsInOneLine(
    () => runExport(["--sae", scene.sae, ...args]),
    /Cannot export features of ".+": expected an index of them: got none: make one with find --out/,
  );
  const index = await Deno.readTextFile(join(other.sae, "features.jsonl"));
  await Deno.writeTextFile(
    join(scene.path, "features.jsonl"),
    index.replace(/"saeFingerprint":"./, '"saeFingerprint":"x'),
  );
  await rejectsInOneLine(
    () => runExport(["--sae", scene.sae, "--index", scene.path, ...args]),
    /^RangeError: Cannot use ".+features.jsonl": expected an index of model/,
  );
});

Deno.test("what export --to open-concept-steering writes, --from reads back into an SAE without labels", async () => {
  using scene = await exportScene({ labels: LABELS });
  using bare = await exportScene({ isMeasured: false });
  const out = join(scene.path, "out");
  const { tokenizer } = await openTinyModel();
  const ids = tokenizer.encode(TEXT, { addSpecial: false });
  const n = ids.length;
  const args = ["--sae", scene.sae, "--to", "open-concept-steering"];
  assert.equal(
    await runExport([...args, "--out", out]),
    [`top_tokens_${n}.json`, `dead_features_${n}.csv`, "feature_labels.csv"]
      .map((file) => `${out}/${file}`).join("\n"),
  );
  const top = JSON.parse(
    await Deno.readTextFile(`${out}/top_tokens_${n}.json`),
  );
  assert.equal(top.length, D_SAE);
  assert.deepEqual(top[3], [[2.5, tokenizer.decode([ids[2]!])]]);
  assert.deepEqual(top[0], []);
  const dead = (await Deno.readTextFile(`${out}/dead_features_${n}.csv`))
    .split("\n");
  assert.deepEqual(dead.slice(0, 4), ["0", "True", "False", "False"]);
  assert.equal(dead.length, D_SAE + 2);

  const printed = await runExport(["--from", out, "--sae", bare.sae]);
  assert.match(printed, /^2 labels for ".+"; 0 rows without one\n/);
  assert.match(printed, /largest activations of 64 features, \d+ of which nev/);
  assert.deepEqual(
    JSON.parse(await Deno.readTextFile(join(bare.sae, "labels.json"))),
    {
      1: { label: 'the "dog", or a dog', source: "a test" },
      40: { label: "never seen" },
    },
  );
  const steered = await runTask(
    ["steer", "Hello", "--steer", "3=1x", "--sae", bare.sae, "--quiet"],
  );
  assert.equal(steered.code, 0, steered.stderr);
});
