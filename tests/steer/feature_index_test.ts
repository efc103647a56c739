import assert from "node:assert/strict";
import { Rng } from "../../core/rng.ts";
import { memoryFolder } from "../../core/source.ts";
import {
  type FeatureIndex,
  FeatureIndexBuilder,
  type FeatureIndexSource,
} from "../../steer/feature_index.ts";
import {
  FEATURES_FILE,
  loadFeatureIndex,
  saeFingerprint,
  saveFeatureIndex,
} from "../../steer/feature_index_file.ts";
import { SaeFile } from "../../core/sae_file.ts";
import { assertClose } from "../assert_close.ts";
import { savedSae, writableFolder } from "../core/sae_for_tests.ts";
import { rejectsInOneLine } from "../rejects_in_one_line.ts";
import { sparse } from "./sparse_rows.ts";

const SOURCE: FeatureIndexSource = {
  modelFingerprint: "m",
  saeFingerprint: "s",
  text: "storybook:1:2",
};

/** A document of tokens 100, 101, … and its start token; `rows` are the activations of all but the start token. */
function add(
  builder: FeatureIndexBuilder,
  id: string,
  rows: readonly (readonly number[])[],
): void {
  const ids = Uint32Array.from([0, ...rows.map((_, t) => 100 + t)]);
  builder.add({ id, ids }, sparse(rows));
}

/** One column of activations of feature 0. */
const column = (...values: number[]) => values.map((value) => [value]);

Deno.test("FeatureIndexBuilder counts density, maximum and mean over the tokens that have rows", () => {
  const builder = new FeatureIndexBuilder(SOURCE, 3);
  add(builder, "a", [[1, 0, 0], [0, 0, 4]]);
  add(builder, "b", [[3, 0, 0], [0, 0, 0], [2, 0, 0]]);
  const index = builder.finish();
  assert.deepEqual(index.header, {
    ...SOURCE,
    d_sae: 3,
    nContexts: 10,
    nDocuments: 2,
    nTokens: 5,
  });
  const { max, density, mean } = index.numbers;
  assert.deepEqual(max, Float32Array.of(3, 0, 4));
  assert.deepEqual(density, Float32Array.of(0.6, 0, 0.2));
  assert.deepEqual(mean, Float32Array.of(2, 0, 4));
  assert.deepEqual(index.entry(1), {
    feature: 1,
    max: 0,
    density: 0,
    mean: 0,
    contexts: [],
  });
});

Deno.test("FeatureIndexBuilder keeps the strongest contexts, at most two of a document", () => {
  const builder = new FeatureIndexBuilder(SOURCE, 1, 3);
  add(builder, "a", column(9, 8, 7, 6));
  add(builder, "b", column(1));
  add(builder, "c", column(5, 2));
  add(builder, "d", column(8.5));
  const { contexts } = builder.finish().entry(0);
  assert.deepEqual(
    contexts.map(({ document, position, activation }) => [
      document,
      position,
      activation,
    ]),
    [["a", 1, 9], ["d", 1, 8.5], ["a", 2, 8]],
  );
});

Deno.test("FeatureIndexBuilder keeps the earlier of equally strong contexts", () => {
  const builder = new FeatureIndexBuilder(SOURCE, 1, 2);
  for (const id of ["a", "b", "c"]) add(builder, id, column(5, 5, 5));
  const { contexts } = builder.finish().entry(0);
  assert.deepEqual(
    contexts.map(({ document, position }) => [document, position]),
    [["a", 1], ["a", 2]],
  );
});

Deno.test("FeatureIndexBuilder cuts contexts out of documents with the activation of every token", () => {
  const builder = new FeatureIndexBuilder(SOURCE, 2);
  // 40 tokens after the start token; feature 1 is strongest on the 30th, at position 30.
  const rows = Array.from({ length: 40 }, (_, t) => [0, t === 29 ? 7 : t % 2]);
  add(builder, "a", rows);
  const index = builder.finish();
  const [middle] = index.entry(1).contexts;
  assert.equal(middle!.position, 30);
  assert.equal(middle!.start, 14);
  assert.deepEqual(middle!.ids, Array.from({ length: 25 }, (_, i) => 113 + i));
  assert.deepEqual(
    middle!.acts,
    rows.slice(13, 38).map(([, value]) => value),
  );
  const short = new FeatureIndexBuilder(SOURCE, 1);
  add(short, "b", column(1, 3));
  const [whole] = short.finish().entry(0).contexts;
  assert.deepEqual(whole, {
    document: "b",
    position: 2,
    activation: 3,
    start: 0,
    ids: [0, 100, 101],
    acts: [0, 1, 3],
  });
});

Deno.test("FeatureIndexBuilder agrees with sorting everything on random activations", () => {
  const rng = new Rng(4);
  const d_sae = 5;
  const builder = new FeatureIndexBuilder(SOURCE, d_sae, 4);
  const all: { document: string; position: number; activation: number }[][] =
    Array.from({ length: d_sae }, () => []);
  for (let n = 0; n < 30; n++) {
    const id = `doc ${n}`;
    const rows = Array.from(
      { length: 1 + rng.below(12) },
      () =>
        Array.from(
          { length: d_sae },
          () => rng.uniform() < 0.3 ? Math.fround(rng.uniform()) : 0,
        ),
    );
    add(builder, id, rows);
    for (let feature = 0; feature < d_sae; feature++) {
      const best = rows
        .map((row, t) => ({
          document: id,
          position: t + 1,
          activation: row[feature]!,
        }))
        .filter(({ activation }) => activation > 0)
        .sort((a, b) => b.activation - a.activation)
        .slice(0, 2);
      all[feature]!.push(...best);
    }
  }
  const index = builder.finish();
  for (const [feature, places] of all.entries()) {
    const got = index.entry(feature).contexts.map((
      { document, position, activation },
    ) => ({ document, position, activation }));
    const want = places.sort((a, b) => b.activation - a.activation);
    assert.deepEqual(got, want.slice(0, 4));
  }
});

Deno.test("FeatureIndex.entry() refuses a feature that there is not", () => {
  const index = new FeatureIndexBuilder(SOURCE, 3).finish();
  for (const feature of [3, -1, 0.5, NaN]) {
    assert.throws(
      () => index.entry(feature),
      /^RangeError: Cannot show feature \S+: expected a feature from 0 to 2$/,
    );
  }
});

/** Three features, of which 1 never fires. */
function smallIndex(): FeatureIndex {
  const builder = new FeatureIndexBuilder(SOURCE, 3, 2);
  add(builder, "a", [[1, 0, 0], [0, 0, 1 / 3]]);
  add(builder, "b", [[3, 0, 0], [0, 0, 0], [2, 0, 0]]);
  return builder.finish();
}

const OF = { ...SOURCE, d_sae: 3 };

Deno.test("loadFeatureIndex() gives what saveFeatureIndex() wrote, to 6 digits", async () => {
  const { folder, write } = writableFolder();
  const index = smallIndex();
  await saveFeatureIndex(write, index);
  const loaded = await loadFeatureIndex(folder(), OF);
  assert.deepEqual(loaded.header, index.header);
  for (const name of ["max", "density", "mean"] as const) {
    const closeness = { rtol: 5e-6, label: name };
    assertClose(loaded.numbers[name], index.numbers[name], closeness);
  }
  for (const feature of [0, 1]) {
    const [got, want] = [loaded, index].map((i) => i.entry(feature));
    assert.deepEqual({ ...got, density: 0 }, { ...want, density: 0 });
  }
  assert.equal(loaded.entry(2).contexts[0]!.activation, Math.fround(0.333333));
});

Deno.test("loadFeatureIndex() refuses an index of another model or SAE", async () => {
  const { folder, write } = writableFolder();
  await saveFeatureIndex(write, smallIndex());
  for (
    const other of [
      { modelFingerprint: "x" },
      { saeFingerprint: "x" },
      { d_sae: 4 },
    ]
  ) {
    await rejectsInOneLine(
      () => loadFeatureIndex(folder(), { ...OF, ...other }),
      /^RangeError: Cannot use "sae\/features.jsonl": expected an index of .*: make it anew with find --out$/,
    );
  }
});

Deno.test("loadFeatureIndex() refuses damaged files, in one line", async () => {
  const { files, write } = writableFolder();
  await saveFeatureIndex(write, smallIndex());
  const text = new TextDecoder().decode(files[FEATURES_FILE]);
  const [header, first] = text.split("\n") as [string, string];
  const entry = JSON.parse(first);
  const [context] = entry.contexts;
  const withContext = (changes: object) =>
    `${header}\n${
      JSON.stringify({ ...entry, contexts: [{ ...context, ...changes }] })
    }`;
  const bad: [string, RegExp][] = [
    ["", /line 1: expected JSON: got nothing: make it anew/],
    ["{", /line 1: expected JSON: got other text/],
    ["{}", /line 1: field "formatVersion": /],
    [header.replace(`"d_sae":3`, `"d_sae":1e12`), /field "d_sae": /],
    [header.replace(`"nContexts":2`, `"nContexts":1e9`), /field "nContexts": /],
    [`${header}\n{"feature":`, /line 2: expected JSON: got other text/],
    [`${header}\n{"feature":1}`, /line 2: field "max": /],
    [text.replace(`"feature":2`, `"feature":7`), /line 3: .* got feature 7 /],
    [
      text.replace(`"nContexts":2`, `"nContexts":1`),
      /at most 1 contexts: got feature 0 with 2$/,
    ],
    [withContext({ acts: [] }), /expected ids and acts around the position: /],
    [
      withContext({ ids: Array(26).fill(1), acts: Array(26).fill(1) }),
      /field "contexts.0": expected ids and acts around the position: /,
    ],
    [withContext({ start: 1 }), /expected ids and acts around/],
    [withContext({ position: 99, start: 83 }), /expected ids and acts around/],
    [withContext({ ids: context.ids.map(() => -1) }), /field "contexts.0.ids/],
  ];
  for (const [damaged, pattern] of bad) {
    const folder = memoryFolder("sae", {
      [FEATURES_FILE]: new TextEncoder().encode(damaged),
    });
    await rejectsInOneLine(() => loadFeatureIndex(folder, OF), pattern);
    await rejectsInOneLine(
      () => loadFeatureIndex(folder, OF),
      /^SyntaxError: Cannot read "sae\/features.jsonl" line \d+: /,
    );
  }
  await rejectsInOneLine(
    () => loadFeatureIndex(memoryFolder("sae", {}), OF),
    /features.jsonl/,
  );
});

Deno.test("saeFingerprint() changes with the weights and not with the metadata", async () => {
  const { folder, files } = await savedSae();
  const fingerprint = async () =>
    await saeFingerprint(await SaeFile.open(folder()));
  const before = await fingerprint();
  assert.match(before, /^[0-9a-f]{16}$/);
  const config = files["cfg.json"]!;
  files["cfg.json"] = new TextEncoder().encode(
    new TextDecoder().decode(config).replace("tiny-olmo2", "another"),
  );
  assert.equal(await fingerprint(), before);
  files["cfg.json"] = config;
  const weights = files["sae_weights.safetensors"]!;
  weights[weights.length - 1]! ^= 1;
  assert.notEqual(await fingerprint(), before);
});
