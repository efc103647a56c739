import assert from "node:assert/strict";
import { samplePick } from "../../kernels/sample_pick.ts";
import { randomNormal } from "../assert_close.ts";
import { testGpu } from "../gpu_for_tests.ts";
import {
  pickReference,
  uniformReference,
} from "../reference/sampling_reference.ts";
import { seededTest } from "./run_kernel.ts";
import { all, NO_TOKEN, pack } from "./sampling_settings.ts";

/** Draws one token a row for each of the steps. */
async function pick(
  probs: Float32Array<ArrayBuffer>,
  seeds: ArrayLike<number>,
  steps: readonly number[],
): Promise<Uint32Array[]> {
  const gpu = await testGpu();
  const R = seeds.length;
  using owned = new DisposableStack();
  const probsTensor = owned.use(
    gpu.floats("probs", [R, probs.length / R], probs),
  );
  const launches = steps.map((step) => ({
    probs: probsTensor,
    settings: owned.use(gpu.upload(
      "settings",
      "u32",
      [R, 8],
      pack(Array.from(seeds, (seed) => ({ ...all, seed, step }))).values,
    )),
    tokens: owned.use(gpu.tensor("tokens", "u32", [R])),
  }));
  gpu.record("pick", (rec) => {
    for (const tensors of launches) samplePick.run(rec, tensors);
  });
  return await Promise.all(launches.map(({ tokens }) => gpu.readInts(tokens)));
}

seededTest(
  "samplePick() inverts the distribution at the hash of seed and step",
  async (draw) => {
    for (const vocab of [1, 5, 256, 257, 3000]) {
      const R = 8;
      const seeds = [...draw(R, 1e9)].map((x) => Math.abs(Math.round(x)) >>> 0);
      // Not normalised, with zeros between.
      const probs = draw(R * vocab).map((x, i) =>
        x > 1 && vocab > 1 ? 0 : Math.abs(x) + (i % vocab === 0 ? 1 : 0)
      );
      const steps = [0, 1, 2, 4095, 0xffffffff];
      const picked = await pick(probs, seeds, steps);
      let nChecked = 0;
      for (const [i, step] of steps.entries()) {
        for (let r = 0; r < R; r++) {
          const row = probs.subarray(r * vocab, (r + 1) * vocab);
          const { token, margin } = pickReference(row, seeds[r]!, step);
          // Running sums of up to 3000 in f32 may fall on the other side of a near miss.
          if (margin < 1e-3) continue;
          assert.equal(
            picked[i]![r],
            token,
            `row ${r}, step ${step}, vocabulary ${vocab}`,
          );
          nChecked++;
        }
      }
      assert.ok(nChecked > 30, `${nChecked} of 40 draws were clear`);
    }
  },
);

Deno.test("samplePick() takes the token whose range begins at the draw", async () => {
  const seeds = [...Array(200).keys()];
  for (const [later, want] of [[0, 1], [2 ** -23, 0]] as const) {
    // Multiples of 2⁻²³ with sum 1, so that all sums are exact.
    const probs = Float32Array.from(seeds.flatMap((seed) => {
      const first = uniformReference(seed, 3) + later;
      return [first, 1 - first];
    }));
    const [tokens] = await pick(probs, seeds, [3]);
    assert.deepEqual([...tokens!], seeds.map(() => want));
  }
});

/** χ² of counts against the shares that are expected of them. */
function chiSquare(
  counts: readonly number[],
  shares: readonly number[],
): number {
  const n = counts.reduce((a, b) => a + b);
  return counts.reduce((sum, count, i) => {
    const expected = shares[i]! * n;
    if (expected === 0) return count === 0 ? sum : Infinity;
    return sum + (count - expected) ** 2 / expected;
  }, 0);
}

Deno.test("samplePick() draws each token as often as its probability says", async () => {
  const probs = [0, 0.4, 0.25, 0, 0.15, 0.1, 0.05, 0.03, 0.02, 0];
  const rows = (R: number) =>
    Float32Array.from({ length: 10 * R }, (_, i) => probs[i % 10]!);
  const range = (n: number) => [...Array(n).keys()];
  const bySeed = await pick(rows(1000), range(1000), range(10));
  const byStep = await pick(
    rows(20),
    range(20).map((r) => 77 + 1000 * r),
    range(500),
  );
  const counts = probs.map(() => 0);
  for (const tokens of [...bySeed, ...byStep]) {
    for (const token of tokens) counts[token]!++;
  }
  assert.equal(counts.reduce((a, b) => a + b), 20_000);
  // 6 degrees of freedom: above 22.5 once in a thousand times, but the seeds are fixed.
  assert.ok(chiSquare(counts, probs) < 22.5, `counts ${counts}`);

  // A token says nothing of the next step's, nor of the next seed's: 36 degrees of freedom, above 67 once in a thousand.
  for (
    const [now, next] of [
      [byStep, byStep.slice(1)],
      [bySeed, bySeed.map((tokens) => tokens.subarray(1))],
    ] as const
  ) {
    const pairs = probs.flatMap(() => probs.map(() => 0));
    for (const [i, tokens] of next.entries()) {
      for (const [r, token] of tokens.entries()) {
        pairs[now[i]![r]! * 10 + token]!++;
      }
    }
    const shares = probs.flatMap((p) => probs.map((q) => p * q));
    assert.ok(chiSquare(pairs, shares) < 67, `pairs ${pairs}`);
  }
});

Deno.test("samplePick() gives a row the same token whatever lies beside it", async () => {
  const row = randomNormal(500, 3).map(Math.abs);
  const others = randomNormal(1500, 4).map(Math.abs);
  const [alone] = await pick(row, [42], [9]);
  const [first] = await pick(Float32Array.from([...row, ...others]), [
    42,
    1,
    2,
    3,
  ], [9]);
  const [last] = await pick(Float32Array.from([...others, ...row]), [
    1,
    2,
    3,
    42,
  ], [9]);
  assert.deepEqual([first![0], last![3]], [alone![0], alone![0]]);
});

Deno.test("samplePick() never takes a token of probability 0", async () => {
  const vocab = 700;
  const only = [0, 1, 255, 256, 511, 699];
  const probs = new Float32Array(only.length * vocab);
  for (const [r, token] of only.entries()) probs[r * vocab + token] = 1e-3;
  const picked = await pick(probs, only.map((_, r) => r), [
    ...Array(50).keys(),
  ]);
  for (const tokens of picked) assert.deepEqual([...tokens], only);
});

Deno.test("samplePick() gives no token for rows that are no distribution", async () => {
  const rows = [[0.5, 0.5, 0], [0, 0, 0], [0.5, NaN, 0.5], [0.5, -0.5, 1], [
    1,
    Infinity,
    0,
  ]];
  const [tokens] = await pick(Float32Array.from(rows.flat()), [1, 2, 3, 4, 5], [
    0,
  ]);
  assert.ok(tokens![0]! < 2);
  assert.deepEqual([...tokens!.subarray(1)], Array(4).fill(NO_TOKEN));
});
