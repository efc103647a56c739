/**
 * `export --from` in this process: what other tools wrote, right and hostile.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { gzip } from "../../core/gzip.ts";
import { memorySource } from "../../core/source.ts";
import { ImportedLabels } from "../../steer/imported_labels.ts";
import { readNeuronpediaExplanations } from "../../steer/neuronpedia_labels.ts";
import { rejectsInOneLine } from "../rejects_in_one_line.ts";
import { exportScene, runExport } from "./export_scene.ts";
import { D_SAE } from "./made_sae.ts";

const HEADING = "feature_id,label,chain_of_thought,tokens\n";
const explanation = (fields: Record<string, unknown>): string =>
  JSON.stringify({
    id: "x",
    modelId: "olmo",
    layer: "3-res-64",
    index: "5",
    description: "dogs",
    ...fields,
  }) + "\n";

/** Writes the files into a folder of their own beside the SAE. */
async function withFiles(
  path: string,
  files: Record<string, string | Uint8Array<ArrayBuffer>>,
): Promise<string> {
  const folder = await Deno.makeTempDir({ dir: path });
  for (const [name, content] of Object.entries(files)) {
    await Deno.mkdir(join(folder, name, ".."), { recursive: true });
    if (typeof content === "string") {
      await Deno.writeTextFile(join(folder, name), content);
    } else await Deno.writeFile(join(folder, name), content);
  }
  return folder;
}

async function readLabelsFile(sae: string): Promise<unknown> {
  return JSON.parse(await Deno.readTextFile(join(sae, "labels.json")));
}

Deno.test("export --from takes Neuronpedia's explanations, and keeps the SAE's own labels unless told", async () => {
  using scene = await exportScene({
    labels: new Map([[5, { label: "cats", source: "me" }]]),
  });
  const more = explanation({
    index: 6,
    description: "red\u001b[31m\n text",
    typeName: "np_max-act",
    explanationModelName: "gpt-4o",
  });
  const lines = explanation({}) + more + explanation({ index: "6" }) + "\n" +
    explanation({ index: "7", description: " Uncertain" });
  const folder = await withFiles(scene.path, {
    "explanations/batch-0.jsonl.gz": await gzip(
      new TextEncoder().encode(lines),
    ),
    "features/batch-0.jsonl.gz": "not read",
    "source.jsonl": "not read",
  });
  const args = ["--sae", scene.sae, "--from"];
  assert.match(
    await runExport([...args, folder]),
    /^2 labels for ".+", 1 of them left out for its own; 2 rows without one$/,
  );
  const red = { label: "red [31m text", source: "np_max-act gpt-4o" };
  assert.deepEqual(await readLabelsFile(scene.sae), {
    5: { label: "cats", source: "me" },
    6: red,
  });
  const one = join(folder, "explanations/batch-0.jsonl.gz");
  await runExport([...args, one, "--replace"]);
  assert.deepEqual(await readLabelsFile(scene.sae), {
    5: { label: "dogs" },
    6: red,
  });
});

Deno.test("readNeuronpediaExplanations() stops where more comes out of a file than may be in it", async () => {
  const lines = new TextEncoder().encode(explanation({}).repeat(2000));
  const packed = memorySource("batch-0.jsonl.gz", await gzip(lines));
  const read = (most: number) => {
    const into = new ImportedLabels(D_SAE);
    return readNeuronpediaExplanations(packed, into, 3, most);
  };
  await read(lines.length);
  await rejectsInOneLine(
    () => read(lines.length - 1),
    /^RangeError: Cannot read "batch-0.jsonl.gz": expected at most \d+ bytes, unpacked: got more/,
  );
});

Deno.test("export --from leaves measured activations as they are, unless told", async () => {
  using scene = await exportScene();
  const top = Array.from({ length: D_SAE }, (_, i) => [[i - 1, " x"]]);
  const dead = top.map((_, i) => (i < 2 ? "True\n" : "False\n")).join("");
  const folder = await withFiles(scene.path, {
    "top_tokens_10m.json": JSON.stringify(top),
    "dead_features_10m.csv": "0\n" + dead,
  });
  const before = await Deno.readFile(
    join(scene.sae, "feature_max.safetensors"),
  );
  const args = ["--sae", scene.sae, "--from", folder];
  assert.match(await runExport(args), /left as they are: --replace takes/);
  const file = join(scene.sae, "feature_max.safetensors");
  assert.deepEqual(await Deno.readFile(file), before);
  assert.match(
    await runExport([...args, "--replace"]),
    /activations of 64 features, 2 of which never fire/,
  );
  const values = (await Deno.readFile(file)).slice(-4 * D_SAE);
  assert.deepEqual(
    new Float32Array(values.buffer),
    Float32Array.from(top, (_, i) => Math.max(0, i - 1)),
  );
});

Deno.test("export --from refuses what is damaged, hostile or of another SAE, and writes nothing", async () => {
  using scene = await exportScene();
  const top = (n: number): unknown[][] => Array.from({ length: n }, () => []);
  const cases: readonly (readonly [
    Record<string, string | Uint8Array<ArrayBuffer>>,
    RegExp,
  ])[] = [
    [{ "a.txt": "" }, /expected batch-N.jsonl.gz of .+: got none of these/],
    [{ "batch-0.jsonl": explanation({}) + "{" }, /line 2: expected JSON/],
    [
      { "batch-0.jsonl": explanation({ index: "64" }) },
      /line 1: expected a feature from 0 to 63: got "64": is it of another/,
    ],
    [{ "batch-0.jsonl": explanation({ index: "__proto__" }) }, /got "__proto/],
    [{ "batch-0.jsonl": explanation({ index: -1 }) }, /63: got "-1"/],
    [{ "batch-0.jsonl": explanation({ description: 5 }) }, /"description"/],
    [
      { "batch-0.jsonl": explanation({ description: "x".repeat(2000) }) },
      /expected a label of at most 1000 characters: got 2000/,
    ],
    [
      { "batch-0.jsonl": explanation({ layer: "12-res-64" }) },
      /expected explanations of layer 3, as the SAE's: got "12-res-64"/,
    ],
    [{ "batch-0.jsonl.gz": "plain" }, /Cannot read ".+": /],
    [{ "feature_labels.csv": "a,b\n" }, /expected the columns feature_id, la/],
    [{ "feature_labels.csv": "" }, /expected the columns .+: got ""/],
    [{ "feature_labels.csv": HEADING + "1,x\n" }, /row 2: expected 4 fields/],
    [
      { "feature_labels.csv": HEADING + "1,x,y,z\n1e1,x,y,z\n" },
      /row 3: expected a feature from 0 to 63: got "1e1"/,
    ],
    [{ "top_tokens_1.json": "[[[NaN, 1]]]" }, /expected JSON/],
    [{ "top_tokens_1.json": "{}" }, /expected a list with a list of each/],
    [
      { "top_tokens_1.json": JSON.stringify(top(63)) },
      /expected 64 features, as the SAE has: got 63/,
    ],
    [
      { "top_tokens_1.json": JSON.stringify(top(64).with(7, [[1e300, "x"]])) },
      /feature 7: expected a list of at most 50 pairs of a finite activation/,
    ],
    [
      { "top_tokens_1.json": JSON.stringify(top(64).with(7, [[1, "x", 2]])) },
      /feature 7: expected a list/,
    ],
    [
      { "top_tokens_1.json": "[]", "top_tokens_2.json": "[]" },
      /expected one file of a kind: got top_tokens_1.json, top_tokens_2.json/,
    ],
    [{ "dead_features_1.csv": "0\n" }, /expected top_tokens of the same run/],
    [
      {
        "dead_features_1.csv": "0\n" + "True\n".repeat(64),
        "top_tokens_1.json": JSON.stringify(top(64).with(9, [[1, "x"]])),
      },
      /expected no activation of dead features: got 1 of feature 9/,
    ],
    [
      {
        "dead_features_1.csv": "0\n" + "True\n".repeat(65),
        "top_tokens_1.json": JSON.stringify(top(64)),
      },
      /expected 64 features, as the SAE has: got 65/,
    ],
    [
      {
        "dead_features_1.csv": "True\n",
        "top_tokens_1.json": JSON.stringify(top(64)),
      },
      /row 1: expected one column with the heading 0 and True or False/,
    ],
    // The last file is wrong: what came before it is not written either.
    [
      { "batch-0.jsonl": explanation({}), "feature_labels.csv": "x" },
      /expected the columns/,
    ],
  ];
  const before = [...Deno.readDirSync(scene.sae)].length;
  for (const [files, pattern] of cases) {
    const folder = await withFiles(scene.path, files);
    await rejectsInOneLine(
      () => runExport(["--sae", scene.sae, "--from", folder]),
      pattern,
    );
  }
  assert.equal([...Deno.readDirSync(scene.sae)].length, before);
  await rejectsInOneLine(
    () => runExport(["--from", scene.path]),
    /^TypeError: Cannot import: expected --sae/,
  );
  await rejectsInOneLine(
    () => runExport(["--from", scene.path, "--to", "neuronpedia"]),
    /^TypeError: Cannot export: expected either --to or --from: got both/,
  );
  const beside = join(scene.sae, "other.safetensors");
  await Deno.copyFile(join(scene.sae, "sae_weights.safetensors"), beside);
  await rejectsInOneLine(
    () => runExport(["--sae", beside, "--from", scene.path]),
    /^Error: Cannot import: expected an SAE in a folder of its own: got ".+other.safetensors"/,
  );
});
