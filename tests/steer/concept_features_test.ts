import assert from "node:assert/strict";
import { CONCEPTS } from "../../core/storybook.ts";
import { findConceptFeatures } from "../../steer/concept_features.ts";
import { rejectsInOneLine } from "../rejects_in_one_line.ts";
import { Embedded } from "./embedded.ts";

Deno.test("findConceptFeatures() finds a feature of its own for each concept", async () => {
  using embedded = await Embedded.load();
  const { model, sae, hookPoint } = embedded;
  const seen: number[] = [];
  const scores = await findConceptFeatures(
    model,
    sae,
    hookPoint,
    embedded.documents(404, 40),
    { onProgress: (n) => seen.push(n) },
  );
  assert.deepEqual(seen, Array.from({ length: 40 }, (_, i) => i + 1));
  assert.ok(scores.length >= 15, `${scores.length} concepts in 40 documents`);
  assert.equal(
    new Set(scores.map(({ concept }) => concept)).size,
    scores.length,
  );
  const known = new Set(CONCEPTS.map(({ concept }) => concept));
  for (const { concept, feature, f1 } of scores) {
    assert.ok(known.has(concept), concept);
    assert.ok(feature >= 0 && feature < sae.d_sae, `${feature}`);
    assert.ok(f1 > 0.3 && f1 <= 1, `${concept}: F1 ${f1}`);
  }
});

Deno.test("findConceptFeatures() refuses documents without labels, and stops at a signal", async () => {
  using embedded = await Embedded.load();
  const { model, sae, hookPoint } = embedded;
  async function* plain() {
    for await (const { spans: _, ...document } of embedded.documents(404, 2)) {
      yield document;
    }
  }
  await rejectsInOneLine(
    () => findConceptFeatures(model, sae, hookPoint, plain()),
    /^RangeError: Cannot find the features of concepts: expected .* labelled spans: got none$/,
  );
  const signal = AbortSignal.abort(new Error("enough"));
  await assert.rejects(
    findConceptFeatures(model, sae, hookPoint, embedded.documents(404, 40), {
      signal,
    }),
    { message: "enough" },
  );
});
