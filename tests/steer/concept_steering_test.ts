import assert from "node:assert/strict";
import { conceptByName, NEUTRAL_QUESTIONS } from "../../core/storybook.ts";
import { chooseStrength, runTrials } from "../../steer/concept_steering.ts";
import type { Intervention } from "../../steer/interventions.ts";
import { featureOfLabel, readLabels } from "../../steer/labels.ts";
import { directory } from "../../core/files.ts";
import { Embedded } from "./embedded.ts";

const tried = (
  strength: number,
  conceptRate: number,
  perplexity: number,
) => ({ strength, conceptRate, perplexity });

Deno.test("chooseStrength() takes the highest rate that keeps the perplexity", () => {
  const all = [tried(3, 1, 9), tried(1, 0.2, 2), tried(2, 0.6, 4)];
  assert.equal(chooseStrength(all, 4).strength, 2);
  assert.equal(chooseStrength(all, 9).strength, 3);
});

Deno.test("chooseStrength() takes the weaker one when rates are equal, and the weakest when none is bearable", () => {
  const all = [tried(3, 0.6, 3), tried(2, 0.6, 3), tried(1, 0.5, 3)];
  assert.equal(chooseStrength(all, 3).strength, 2);
  assert.equal(chooseStrength(all, 2).strength, 1);
  assert.equal(
    chooseStrength([tried(2, 1, NaN), tried(1, 0, 1)], 2).strength,
    1,
  );
});

Deno.test("chooseStrength() refuses to choose among none", () => {
  assert.throws(() => chooseStrength([], 1), {
    name: "RangeError",
    message: "Cannot choose a strength: expected at least one: got none",
  });
});

Deno.test("runTrials() finds the concept in most replies that it steers to, and in few others", async () => {
  using embedded = await Embedded.load();
  const { model, folder, saeFile, layer } = embedded;
  const labels = await readLabels(directory(saeFile.name), saeFile.d_sae);
  const [batman, baseball] = ["batman", "baseball"].map((name) => ({
    concept: conceptByName(name),
    steering: [{
      feature: featureOfLabel(labels, name),
      mode: "clamp",
      strength: 2,
      unit: "maximum",
    }] satisfies Intervention[],
  }));
  const done: number[] = [];
  const options = {
    layer,
    questions: NEUTRAL_QUESTIONS.slice(0, 8),
    maxNewTokens: 24,
    sampling: { temperature: 0.7, topK: 0, topP: 0.9, seed: 3 },
  };
  const run = (seed: number) =>
    runTrials(
      model,
      folder.tokenizer,
      saeFile,
      [
        { concept: batman!.concept, interventions: [] },
        { concept: batman!.concept, interventions: batman!.steering },
        { concept: baseball!.concept, interventions: baseball!.steering },
        { concept: batman!.concept, interventions: baseball!.steering },
      ],
      {
        ...options,
        sampling: { ...options.sampling, seed },
        onProgress: (n) => done.push(n),
      },
    );
  const results = await run(3);
  const [plain, steered, other, crossed] = results.map((result) =>
    result.conceptRate
  );
  assert.ok(plain! <= 0.25, `unsteered ${plain}`);
  assert.ok(steered! >= plain! + 0.375, `batman ${steered} over ${plain}`);
  assert.ok(other! >= 0.375, `baseball ${other}`);
  assert.ok(crossed! <= 0.25, `batman when steered to baseball ${crossed}`);
  for (const { replies, perplexity } of results) {
    assert.equal(replies.length, 8);
    assert.ok(perplexity > 1 && perplexity < 100, `${perplexity}`);
  }
  assert.equal(done.at(-1), 4);
});
