import assert from "node:assert/strict";
import { Rng } from "../../core/rng.ts";
import {
  conceptScores,
  F1_CANDIDATES,
  F1_THRESHOLDS,
  featureMaxima,
  largest,
} from "../../steer/concept_f1.ts";
import { assertClose } from "../assert_close.ts";
import { sparse } from "./sparse_rows.ts";

Deno.test("conceptScores() gives the F1 that is worked out by hand", () => {
  // Feature 0 is "sea" above 0.2 of its maximum: 2 of 3 tokens, no other. Feature 1
  // fires on everything. Feature 2 is "fog" above 0: its only token, and one other.
  const rows = [
    [10, 1, 0],
    [4, 1, 0],
    [1, 1, 0],
    [0, 1, 3],
    [2, 1, 0],
    [0, 1, 1],
  ];
  const concepts = ["sea", "sea", "sea", "fog", undefined, undefined];
  const [sea, fog, ...rest] = conceptScores(sparse(rows), concepts, 3);
  assert.deepEqual(rest, []);
  // At 0: 3 of 4 taken, F1 = 6/7. At 0.2 and up: "more than" leaves 2 out of it, 2 hits of 2 taken, F1 = 4/5.
  assert.deepEqual(sea, {
    concept: "sea",
    feature: 0,
    threshold: 0,
    f1: 6 / 7,
    precision: 3 / 4,
    recall: 1,
  });
  // At 0 to 0.2: 1 hit of 2 taken. At 0.4 the other one, a third of the maximum, is out.
  assert.deepEqual(fog, {
    concept: "fog",
    feature: 2,
    threshold: 0.4,
    f1: 1,
    precision: 1,
    recall: 1,
  });
});

Deno.test("conceptScores() counts thresholds and means in units of the given maxima", () => {
  const rows = [[1], [3], [1], [0]];
  const concepts = [undefined, "sea", undefined, undefined];
  const at = (maximum: number) =>
    conceptScores(sparse(rows), concepts, 1, [maximum])[0]!;
  assert.deepEqual([at(3).threshold, at(3).f1], [0.4, 1]);
  assert.deepEqual([at(20).threshold, at(20).f1], [0.05, 1]);
  assert.deepEqual([at(100).threshold, at(100).f1], [0, 1 / 2]);
});

/** The protocol once more, without anything clever. */
function bestF1(
  rows: readonly (readonly number[])[],
  isInside: readonly boolean[],
): number {
  const d_sae = rows[0]!.length;
  const column = (i: number) => rows.map((row) => row[i]!);
  const mean = (values: readonly number[]) =>
    values.reduce((sum, value) => sum + value, 0) / values.length;
  const difference = (i: number) => {
    const values = column(i);
    const maximum = Math.max(...values);
    return maximum === 0 ? 0 : (mean(values.filter((_, t) => isInside[t])) -
      mean(values.filter((_, t) => !isInside[t]))) / maximum;
  };
  const candidates = Array.from({ length: d_sae }, (_, i) => i)
    .sort((a, b) => difference(b) - difference(a)).slice(0, 20);
  const f1s = candidates.flatMap((i) =>
    [0, 0.05, 0.1, 0.2, 0.4].map((threshold) => {
      const values = column(i);
      const taken = values.map((value) =>
        value > threshold * Math.max(...values)
      );
      const hits = taken.filter((is, t) => is && isInside[t]).length;
      const precision = hits / taken.filter((is) => is).length;
      const recall = hits / isInside.filter((is) => is).length;
      return hits === 0 ? 0 : 2 * precision * recall / (precision + recall);
    })
  );
  return Math.max(...f1s);
}

Deno.test("conceptScores() agrees with the protocol on random activations of more features than are tried", () => {
  const rng = new Rng(11);
  const names = ["sea", "fog", "bee"];
  const concepts = Array.from(
    { length: 150 },
    () => names[rng.below(4)], // undefined for 3
  );
  const rows = concepts.map((concept) =>
    Array.from({ length: 41 }, (_, i) => {
      const liking = names[i % 5] === concept && concept !== undefined
        ? 0.5
        : 0;
      const fires = rng.uniform() < 0.2 + liking;
      return fires ? Math.fround(rng.uniform() + 0.01) : 0;
    })
  );
  const scores = conceptScores(sparse(rows), concepts, 41);
  assert.equal(scores.length, 3);
  for (const { concept, f1 } of scores) {
    const want = bestF1(rows, concepts.map((other) => other === concept));
    assertClose([f1], [want], { rtol: 1e-12, label: concept });
  }
  assert.equal(F1_CANDIDATES, 20);
  assert.deepEqual(F1_THRESHOLDS, [0, 0.05, 0.1, 0.2, 0.4]);
});

Deno.test("conceptScores() gives 0 and not NaN when nothing fires", () => {
  const [score] = conceptScores(sparse([[0, 0], [0, 0]]), ["sea", "sea"], 2);
  assert.deepEqual(score, {
    concept: "sea",
    feature: 0,
    threshold: 0,
    f1: 0,
    precision: 0,
    recall: 0,
  });
});

Deno.test("conceptScores() refuses concepts of other tokens", () => {
  assert.throws(
    () => conceptScores(sparse([[1]]), ["sea", "sea"], 1),
    /^TypeError: Cannot score concepts: expected one for each of 1 tokens: got 2$/,
  );
});

Deno.test("featureMaxima() is 0 where a feature never fires", () => {
  assert.deepEqual(
    featureMaxima(sparse([[1, 0, 2], [3, 0, 1]]), 3),
    Float32Array.of(3, 0, 2),
  );
});

Deno.test("largest() keeps the first of equals", () => {
  assert.deepEqual(largest([1, 3, 3, 2, 3], 3), [1, 2, 4]);
});
