import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import {
  conceptByName,
  CONCEPTS,
  mentionsConcept,
  NEUTRAL_QUESTIONS,
  storybook,
} from "../../core/storybook.ts";

// SHA-256 of the first 2,000 documents as JSON lines: the corpus that the
// embedded model and every published number on it rest on.
const CORPUS_SHA256: Record<number, string> = {
  7: "819c04eadcde70997842632a41b84db46878626d4b3d779378195a3095f02a2a",
  101: "483016d4a612c3c3b85bd9a1647b98f57224b040c316e37372209b4d55c9f6f8",
};

for (const [seed, sha256] of Object.entries(CORPUS_SHA256)) {
  Deno.test(`storybook() writes the same corpus as ever when the seed is ${seed}`, () => {
    const hash = createHash("sha256");
    for (const document of storybook(Number(seed)).take(2000)) {
      hash.update(JSON.stringify(document) + "\n");
    }
    assert.equal(hash.digest("hex"), sha256);
  });
}

Deno.test("storybook() gives spans in order, inside the text and of known concepts", () => {
  let nSpans = 0;
  for (const { text, spans } of storybook(3).take(500)) {
    let end = 0;
    for (const span of spans) {
      assert.ok(span.start >= end && span.end > span.start);
      assert.equal(conceptByName(span.concept).concept, span.concept);
      end = span.end;
      nSpans++;
    }
    assert.ok(end <= text.length);
  }
  assert.ok(nSpans > 500, `${nSpans} spans`);
});

Deno.test("storybook() keeps keywords inside the spans of their concept", () => {
  for (const { text, spans } of storybook(5).take(500)) {
    for (const concept of CONCEPTS) {
      let elsewhere = "";
      let end = 0;
      for (const span of spans) {
        if (span.concept !== concept.concept) continue;
        elsewhere += text.slice(end, span.start) + " ";
        end = span.end;
      }
      elsewhere += text.slice(end);
      assert.ok(!mentionsConcept(elsewhere, concept), elsewhere);
    }
  }
});

Deno.test("storybook() refuses a seed when it is no unsigned 32-bit number", () => {
  for (const seed of [-1, 1.5, NaN, 2 ** 32]) {
    assert.throws(() => storybook(seed), RangeError);
  }
});

Deno.test("CONCEPTS share no keyword with each other or a neutral question", () => {
  const keywords = CONCEPTS.flatMap(({ keywords }) => keywords);
  assert.equal(CONCEPTS.length, 20);
  assert.equal(new Set(keywords).size, keywords.length);
  for (const keyword of keywords) assert.match(keyword, /^[a-z]+$/);
  for (const question of NEUTRAL_QUESTIONS) {
    assert.ok(!CONCEPTS.some((concept) => mentionsConcept(question, concept)));
  }
});

Deno.test("mentionsConcept() finds whole words only, in any case", () => {
  const dog = conceptByName("dog");
  assert.ok(mentionsConcept("The DOG.", dog));
  assert.ok(mentionsConcept("fetch!", dog));
  assert.ok(!mentionsConcept("A hotdog and a dogma", dog));
  assert.ok(!mentionsConcept("", dog));
});

Deno.test("conceptByName() lists the names when there is no such concept", () => {
  assert.throws(() => conceptByName("cat"), /^RangeError: .*"cat".*baseball/);
});
