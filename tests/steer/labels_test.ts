import assert from "node:assert/strict";
import { memoryFolder } from "../../core/source.ts";
import {
  conceptLabels,
  type FeatureLabels,
  featureOfLabel,
  labelledFeatures,
  LABELS_FILE,
  readLabels,
  writeLabels,
} from "../../steer/labels.ts";
import { writableFolder } from "../core/sae_for_tests.ts";
import { rejectsInOneLine } from "../rejects_in_one_line.ts";

const LABELS: FeatureLabels = new Map([
  [758, { label: "baseball", source: "by example" }],
  [0, { label: "ice hockey", source: "a person" }],
  [12, { label: "Japan", source: "a person" }],
  [13, { label: "japan", source: "a person" }],
]);

const folderOf = (json: unknown) =>
  memoryFolder("sae", {
    [LABELS_FILE]: new TextEncoder().encode(
      typeof json === "string" ? json : JSON.stringify(json),
    ),
  });

Deno.test("readLabels() gives what writeLabels() wrote", async () => {
  const { folder, write } = writableFolder();
  await writeLabels(write, LABELS);
  const read = await readLabels(folder(), 759);
  assert.deepEqual(new Map([...read].sort()), new Map([...LABELS].sort()));
});

Deno.test("readLabels() gives none when there is no file", async () => {
  assert.equal((await readLabels(memoryFolder("sae", {}), 10)).size, 0);
});

Deno.test("readLabels() refuses other files, in one line", async () => {
  const label = { label: "a", source: "b" };
  const bad: [unknown, RegExp][] = [
    ["{", /^SyntaxError: .*sae\/labels.json/],
    [[label], /^SyntaxError: Cannot read "sae\/labels.json": /],
    [{ "1x": label }, /^SyntaxError: .*"1x"/],
    [{ "01": label }, /^SyntaxError: .*"01"/],
    [{ 1: "a" }, /^SyntaxError: .*"1"/],
    [{ 1: { label: "", source: "b" } }, /^SyntaxError: .*"1.label"/],
    [{ 1: { label: "a", source: 1 } }, /^SyntaxError: .*"1.source"/],
    [{ 1: { label: "a", why: "b" } }, /^SyntaxError: /],
    [{ 10: label }, /^RangeError: .*features from 0 to 9: got 10: /],
  ];
  for (const [json, pattern] of bad) {
    await rejectsInOneLine(() => readLabels(folderOf(json), 10), pattern);
  }
});

Deno.test("featureOfLabel() finds the one feature of a label, whatever its capitals", () => {
  assert.equal(featureOfLabel(LABELS, "baseball"), 758);
  assert.equal(featureOfLabel(LABELS, "Ice Hockey"), 0);
});

Deno.test("featureOfLabel() refuses a label that no feature has, or two have", () => {
  assert.throws(
    () => featureOfLabel(LABELS, "basebal"),
    /^RangeError: Cannot find the feature labelled "basebal": expected one: got none: did you mean "baseball"\?$/,
  );
  assert.throws(
    () => featureOfLabel(LABELS, "xyzxyzxyz"),
    /^RangeError: .*: got none: name it by its number$/,
  );
  assert.throws(
    () => featureOfLabel(LABELS, "japan"),
    /^RangeError: .*: expected one: got features 12, 13: name one by its number$/,
  );
});

Deno.test("conceptLabels() names a feature after the concept that it tells best", () => {
  const score = (concept: string, feature: number, f1: number) => ({
    ...{ concept, feature, f1 },
    ...{ threshold: 0, precision: f1, recall: f1 },
  });
  const labels = conceptLabels([
    score("ocean", 7, 0.5),
    score("storm", 7, 0.75),
    score("winter", 7, 0.25),
    score("dog", 3, 0.1),
  ]);
  assert.deepEqual(
    new Map([...labels].sort()),
    new Map([
      [3, { label: "dog", source: "F1 0.100 on the labelled storybook" }],
      [7, { label: "storm", source: "F1 0.750 on the labelled storybook" }],
    ]),
  );
});

Deno.test("labelledFeatures() finds all words in any case, the labels with least beside them first", () => {
  const labels = new Map(
    ["ice hockey", "Hockey", "sticks for ice hockey", "ice", "hockey"].map((
      label,
      i,
    ) => [9 - i, { label }]),
  );
  assert.deepEqual(labelledFeatures(labels, "hockey"), [5, 8, 9, 7]);
  assert.deepEqual(labelledFeatures(labels, " HOCKEY  ice"), [9, 7]);
  assert.deepEqual(labelledFeatures(labels, "snow"), []);
});
