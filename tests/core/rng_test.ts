import assert from "node:assert/strict";
import { mulberry32, Rng, type RngState } from "../../core/rng.ts";

Deno.test("Rng follows the reference xoshiro128** from state 1, 2, 3, 4", () => {
  const rng = new Rng(0);
  rng.state = [1, 2, 3, 4];
  // xoshiro128starstar.c, version 1.1; below(2^32) gives the raw words.
  const want = [11520, 0, 5927040, 70819200, 2031721883, 1637235492];
  assert.deepEqual(want.map(() => rng.below(2 ** 32)), want);
});

Deno.test("Rng repeats for the same seed and differs for every other", () => {
  const seeds = [0, 1, 2, 2 ** 32, 2 ** 32 + 1, Number.MAX_SAFE_INTEGER];
  const firsts = seeds.map((seed) => new Rng(seed).uniform());
  assert.equal(new Set(firsts).size, seeds.length);
  assert.deepEqual(seeds.map((seed) => new Rng(seed).uniform()), firsts);
});

Deno.test("Rng refuses a seed that is not a whole number in range", () => {
  for (const seed of [-1, 0.5, NaN, Infinity, 2 ** 53]) {
    assert.throws(() => new Rng(seed), RangeError);
  }
});

Deno.test("Rng.uniform() and normal() have their mean and variance", () => {
  const rng = new Rng(7);
  const n = 40_000;
  const moments = (draw: () => number): [number, number] => {
    const xs = Array.from({ length: n }, draw);
    const mean = xs.reduce((a, b) => a + b, 0) / n;
    return [mean, xs.reduce((a, b) => a + (b - mean) ** 2, 0) / n];
  };
  const [mean, variance] = moments(() => rng.uniform());
  // Five standard errors: 0.289/√n and 0.0745/√n.
  assert.ok(Math.abs(mean - 0.5) < 0.0073, `mean ${mean}`);
  assert.ok(Math.abs(variance - 1 / 12) < 0.0019, `variance ${variance}`);
  const [mean1, variance1] = moments(() => rng.normal());
  assert.ok(Math.abs(mean1) < 0.025, `mean ${mean1}`);
  assert.ok(Math.abs(variance1 - 1) < 0.036, `variance ${variance1}`);
});

Deno.test("Rng.below() draws each of n numbers about equally often", () => {
  const rng = new Rng(3);
  const counts = new Array<number>(7).fill(0);
  for (let i = 0; i < 14_000; i++) counts[rng.below(7)]!++;
  // χ² with 6 degrees of freedom exceeds 32.9 once in 10^5.
  const chi2 = counts.reduce((sum, c) => sum + (c - 2000) ** 2 / 2000, 0);
  assert.ok(chi2 < 32.9, `chi2 ${chi2}: ${counts}`);
  // Taken as a plain remainder, the first third would come up half of the time.
  const draws = Array.from({ length: 3000 }, () => rng.below(3 * 2 ** 30));
  const nFirst = draws.filter((draw) => draw < 2 ** 30).length;
  assert.ok(nFirst > 870 && nFirst < 1130, `${nFirst} of 3000`);
  for (const n of [0, -1, 1.5, NaN, 2 ** 32 + 1]) {
    assert.throws(() => rng.below(n), RangeError);
  }
});

Deno.test("Rng.shuffle() permutes arrays and typed arrays in place", () => {
  const items = Uint32Array.from({ length: 50 }, (_, i) => i);
  const shuffled = new Rng(1).shuffle(items);
  assert.equal(shuffled, items);
  assert.notDeepEqual([...shuffled], [...shuffled].sort((a, b) => a - b));
  assert.deepEqual(
    [...shuffled].sort((a, b) => a - b),
    Array.from({ length: 50 }, (_, i) => i),
  );
  assert.deepEqual(
    new Rng(1).shuffle(Array.from({ length: 50 }, (_, i) => i)),
    [...shuffled],
  );
});

Deno.test("Rng.fork() depends on seed and label, not on what was drawn", () => {
  const fresh = new Rng(5).fork("batches").uniform();
  const used = new Rng(5);
  for (let i = 0; i < 9; i++) used.normal();
  assert.equal(used.fork("batches").uniform(), fresh);
  assert.notEqual(used.fork("init").uniform(), fresh);
  assert.notEqual(used.fork("batches").fork("batches").uniform(), fresh);
  assert.notEqual(new Rng(6).fork("batches").uniform(), fresh);
});

Deno.test("Rng.state resumes a stream where it stood", () => {
  const rng = new Rng(11).fork("train");
  rng.normal();
  const state = JSON.parse(JSON.stringify(rng.state)) as RngState;
  const want = [rng.normal(), rng.uniform(), rng.below(100)];
  const resumed = new Rng(11).fork("train");
  resumed.state = state;
  assert.deepEqual(
    [resumed.normal(), resumed.uniform(), resumed.below(100)],
    want,
  );
});

Deno.test("Rng.state refuses words that are no state", () => {
  const rng = new Rng(1);
  const bad: unknown[] = [[0, 0, 0, 0], [1, 2, 3], [1, 2, 3, -4], [
    1,
    2,
    3,
    NaN,
  ]];
  for (const words of bad) {
    assert.throws(() => rng.state = words as RngState, {
      name: "RangeError",
      message: /^Cannot resume the random numbers: /,
    });
  }
});

Deno.test("mulberry32() gives the numbers of its reference", () => {
  // The definition again, in exact unsigned arithmetic.
  const reference = (seed: number): bigint[] => {
    const mask = 0xffffffffn;
    let counter = BigInt(seed);
    return Array.from({ length: 3 }, () => {
      counter = (counter + 0x6d2b79f5n) & mask;
      let z = counter;
      z = ((z ^ (z >> 15n)) * (z | 1n)) & mask;
      z ^= (z + (((z ^ (z >> 7n)) * (z | 61n)) & mask)) & mask;
      return (z ^ (z >> 14n)) & mask;
    });
  };
  const draw = mulberry32(7);
  const got = Array.from({ length: 3 }, () => BigInt(draw() * 2 ** 32));
  assert.deepEqual(got, reference(7));
});
