import assert from "node:assert/strict";
import type { CorpusDocument } from "../../core/text.ts";
import { gatherExamples } from "../../steer/examples.ts";
import { rejectsInOneLine } from "../rejects_in_one_line.ts";

const DOCUMENTS: CorpusDocument[] = [
  { id: "a", text: "Ben hit the baseball. He ran home. Basebally is no word." },
  {
    id: "b",
    messages: [
      { role: "user", content: "Is BASEBALL fun?" },
      { role: "assistant", content: "The first  base is near." },
    ],
  },
  { id: "c", text: "<|user|>\nDid it rain?\n<|assistant|>\nIt rained, yes." },
];

Deno.test("gatherExamples() takes the sentences that have a word, and all others to compare with", async () => {
  const query = { words: ["baseball", "first base"] };
  const got = await gatherExamples(query, DOCUMENTS);
  assert.deepEqual(got.positives, [
    "Ben hit the baseball.",
    "Is BASEBALL fun?",
    "The first  base is near.",
  ]);
  assert.deepEqual(got.contrasts, [[
    "He ran home.",
    "Basebally is no word.",
    "Did it rain?",
    "It rained, yes.",
  ]]);
  assert.deepEqual([...got.nFound], [["baseball", 2], ["first base", 1]]);
});

Deno.test("gatherExamples() makes sentences for a word that no document has", async () => {
  const query = { words: ["c++"] };
  const { positives, nFound } = await gatherExamples(query, DOCUMENTS);
  assert.equal(nFound.get("c++"), 0);
  assert.ok(positives.length > 1);
  assert.ok(positives.every((text) => /c\+\+/i.test(text)), positives.join());
});

Deno.test("gatherExamples() takes given examples as they are, and given contrasts as a group of their own", async () => {
  const query = { examples: ["Fog. And mist."], against: ["Rain.", "Snow."] };
  const got = await gatherExamples(query, DOCUMENTS.slice(2));
  assert.deepEqual(got.positives, query.examples);
  assert.deepEqual(got.contrasts, [
    ["Did it rain?", "It rained, yes."],
    query.against,
  ]);
  const alone = await gatherExamples(query, []);
  assert.deepEqual(alone.contrasts, [query.against]);
});

Deno.test("gatherExamples() takes at most 16 different sentences a word and a repeatable sample of 200 others", async () => {
  const documents = Array.from({ length: 1000 }, (_, i) => ({
    id: `${i}`,
    text: `A dog of ${Math.floor(i / 2)}. A cat of ${i}.`,
  }));
  const [got, again] = await Promise.all(
    [1, 2].map(() => gatherExamples({ words: ["dog"] }, documents)),
  );
  assert.equal(got!.positives.length, 16);
  assert.equal(new Set(got!.positives).size, 16);
  const [sample] = got!.contrasts;
  assert.equal(new Set(sample).size, 200);
  const late = sample!.filter((text) => Number(/\d+/.exec(text)![0]) >= 500);
  // Binomial, 200 draws of 1/2: five standard deviations are 35.
  assert.ok(Math.abs(late.length - 100) < 36, `${late.length} of 200`);
  assert.deepEqual(again, got);
});

Deno.test("gatherExamples() leaves out pieces that are no sentences", async () => {
  const documents = [{
    id: "a",
    text: `${"x".repeat(501)} 1 2.\n\n* * *\n\nYes.`,
  }];
  const got = await gatherExamples({ examples: ["y"] }, documents);
  assert.deepEqual(got.contrasts, [["Yes."]]);
});

Deno.test("gatherExamples() finds words of any script", async () => {
  const documents = [{ id: "a", text: "Über Ökonomie. Zum Ökonomien." }];
  const got = await gatherExamples({ words: ["ökonomie"] }, documents);
  assert.deepEqual(got.positives, ["Über Ökonomie."]);
});

Deno.test("gatherExamples() refuses queries that show nothing", async () => {
  const bad: [Parameters<typeof gatherExamples>[0], RegExp][] = [
    [
      {},
      /^RangeError: .*expected a word or an example of the concept: got none$/,
    ],
    [{ against: ["x"] }, /expected a word or an example/],
    [{ words: [" "] }, /words and examples with text: got an empty one$/],
    [{ examples: ["x", ""] }, /got an empty one$/],
    [{ examples: ["x"], against: ["\n"] }, /got an empty one$/],
  ];
  for (const [query, pattern] of bad) {
    await rejectsInOneLine(() => gatherExamples(query, DOCUMENTS), pattern);
  }
  await rejectsInOneLine(
    () => gatherExamples({ examples: ["x"] }, []),
    /^RangeError: .*expected sentences that do not show the concept: got none: name a longer text or give --against$/,
  );
});
