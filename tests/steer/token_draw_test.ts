import assert from "node:assert/strict";
import { samplingSettings } from "../../steer/sampling.ts";
import { TokenDraw } from "../../steer/token_draw.ts";
import { assertClose, randomNormal } from "../assert_close.ts";
import { testGpu } from "../gpu_for_tests.ts";
import { type Draw, seededTest } from "../kernels/run_kernel.ts";
import {
  filterReference,
  isClearCut,
  pickReference,
  type RowSettings,
} from "../reference/sampling_reference.ts";
import { all, drawn, NO_TOKEN } from "./drawn.ts";

/** Rows are as float64 has them within 1e-6, and the same tokens are left out. */
function assertProbs(
  got: Float32Array,
  want: ArrayLike<number>,
  label: string,
): void {
  assertClose(got, want, { atol: 1e-6, label });
  const kept = (probs: ArrayLike<number>) =>
    Array.from(probs).flatMap((p, v) => p > 0 ? [v] : []);
  // Weights below the smallest normal number may vanish.
  const wantKept = kept(Float64Array.from(want, (p) => p < 1e-37 ? 0 : p));
  assert.deepEqual(
    kept(got.map((p) => p < 1e-37 ? 0 : p)),
    wantKept,
    `tokens of ${label}`,
  );
}

const kept = (row: Float32Array) => [...row.keys()].filter((v) => row[v]! > 0);

/** A number from 0 to 1. */
const share = (draw: Draw) => Math.abs(draw(1)[0]! * 1e4) % 1;

/** Settings of all kinds, of which rounding cannot move the cut. */
function anySettings(draw: Draw, logits: Float32Array): RowSettings {
  for (;;) {
    const vocab = logits.length;
    const kind = Math.floor(16 * share(draw));
    const settings: RowSettings = {
      temperature: Math.fround([1, 0.3, 0.8, 2.5][kind % 4]!),
      top_p: kind & 1 ? Math.fround(share(draw)) : 1,
      min_p: kind & 2 ? Math.fround(0.3 * share(draw)) : 0,
      top_k: kind & 4 ? 1 + Math.floor(1.1 * vocab * share(draw)) : 0,
      seed: Math.floor(2 ** 32 * share(draw)),
      step: Math.floor(5000 * share(draw)),
    };
    if (isClearCut(logits, settings)) return settings;
  }
}

seededTest(
  "TokenDraw matches float64 for 1 to 9 rows of every width, each with settings of its own",
  async (draw) => {
    let nPicks = 0;
    const widths = [1, 2, 7, 8, 9, 63, 129, 1000, 1023, 1024, 1025, 3001];
    for (const [i, vocab] of widths.entries()) {
      const R = i % 9 + 1;
      const logits = draw(R * vocab, 3);
      const row = (r: number) => logits.subarray(r * vocab, (r + 1) * vocab);
      const settings = Array.from(
        { length: R },
        (_, r) => anySettings(draw, row(r)),
      );
      const { probs, tokens } = await drawn(logits, settings);
      for (const [r, got] of probs.entries()) {
        const label = `row ${r} of ${vocab}: ${JSON.stringify(settings[r])}`;
        const want = filterReference(row(r), settings[r]!);
        assertProbs(got, want, label);
        const { seed, step } = settings[r]!;
        const { token, margin } = pickReference(want, seed, step);
        if (margin < 1e-5) continue;
        assert.equal(tokens[r], token, label);
        nPicks++;
      }
    }
    assert.ok(nPicks > 40, `${nPicks} picks were clear`);
  },
);

seededTest(
  "TokenDraw matches float64 on a vocabulary of 100,352",
  async (draw) => {
    const vocab = 100_352;
    const logits = draw(vocab, 3);
    const descending = [...filterReference(logits, all)].sort((a, b) => b - a);
    // Between one token and the next, so that rounding cannot move the cut.
    const topP = (n: number) =>
      descending.slice(0, n).reduce((a, b) => a + b) - descending[n - 1]! / 2;
    const minP = (n: number) =>
      (descending[n - 1]! + descending[n]!) / 2 / descending[0]!;
    const settings: RowSettings[] = [
      all,
      { ...all, temperature: 0 },
      { ...all, top_k: 50 },
      { ...all, top_k: 300 },
      { ...all, top_p: topP(40) },
      { ...all, top_k: 90_000, top_p: topP(300) },
      { ...all, min_p: minP(70) },
      { ...all, top_p: topP(1000), min_p: minP(500) },
      { ...all, top_k: 100, min_p: minP(20) },
    ];
    for (const some of [settings.slice(0, 5), settings.slice(5)]) {
      const { probs, tokens } = await drawn(
        Float32Array.from(
          { length: some.length * vocab },
          (_, i) => logits[i % vocab]!,
        ),
        some,
      );
      for (const [r, row] of probs.entries()) {
        const label = JSON.stringify(some[r]);
        assertProbs(row, filterReference(logits, some[r]!), label);
        assert.ok(row[tokens[r]!]! > 0, label);
      }
    }
  },
);

Deno.test("TokenDraw keeps all ties with the k-th logit, those at top_p and those at min_p", async () => {
  const check = async (
    logits: number[],
    settings: Partial<RowSettings>,
    want: number[],
  ) => {
    const row = { ...all, ...settings };
    const { probs: [got] } = await drawn(Float32Array.from(logits), [row]);
    assertProbs(got!, filterReference(logits, row), JSON.stringify(settings));
    assert.deepEqual(kept(got!), want);
  };
  await check([3, 1, 2, 2, 2, 0], { top_k: 2 }, [0, 2, 3, 4]);
  await check([3, 1, 2, 2, 2, 0], { top_k: 4 }, [0, 2, 3, 4]);
  await check([3, 1, 2, 2, 2, 0], { top_k: 5 }, [0, 1, 2, 3, 4]);
  await check([0, -0, -1], { top_k: 1 }, [0, 1]);
  await check([-1, -2, -3, -1.5], { top_k: 2 }, [0, 3]);
  await check([5, 5, 5, 5], { top_p: 0.3 }, [0, 1, 2, 3]);
  await check([2, 5, 2, 2], { top_p: 0.85 }, [1]);
  await check([2, 5, 2, 2], { top_p: 0.9 }, [0, 1, 2, 3]);
  await check([2, 5, 2, 2], { min_p: 0.0497 }, [0, 1, 2, 3]);
  await check([2, 5, 2, 2], { min_p: 0.0499 }, [1]);
  await check([4, 4, 3, 1], { min_p: 1 }, [0, 1]);
  // top_p keeps two, of which min_p keeps one; of three that top_k keeps, top_p keeps two
  await check([3, 2, 1, 0], { top_p: 0.8, min_p: 0.4 }, [0]);
  await check([3, 2, 1.9, 1.8, 1.7], { top_k: 3, top_p: 0.7 }, [0, 1]);
  await check([3, 2, 1.9, 1.8, 1.7], { top_p: 0.7 }, [0, 1, 2]);
});

Deno.test("TokenDraw tells logits apart that differ in their last bit", async () => {
  const n = 33;
  const steps = Float32Array.from({ length: n }, (_, i) => 1 + i * 2 ** -23);
  const logits = [...steps, ...steps.map((x) => -x)];
  const settings = [1, 2, 7, 18, 33, 34, 40, 65].map((top_k) => ({
    ...all,
    top_k,
  }));
  const { probs } = await drawn(
    Float32Array.from(settings.flatMap(() => logits)),
    settings,
  );
  for (const [r, row] of probs.entries()) {
    const { top_k } = settings[r]!;
    assertProbs(row, filterReference(logits, settings[r]!), `top_k ${top_k}`);
    assert.equal(kept(row).length, top_k);
  }
});

Deno.test("TokenDraw keeps everything at top_p = 1 and the likeliest at top_p = 0", async () => {
  const logits = Float32Array.of(0, -40, -80, 0, -10);
  const settings = [1, 0, 1e-9].map((top_p) => ({ ...all, top_p }));
  const rows = Float32Array.from([...logits, ...logits, ...logits]);
  const { probs: [one, zero, little] } = await drawn(rows, settings);
  assertProbs(one!, filterReference(logits, all), "top_p 1");
  assert.ok(one!.every((p) => p > 0));
  assert.deepEqual([...zero!], [0.5, 0, 0, 0.5, 0]);
  assert.deepEqual([...little!], [0.5, 0, 0, 0.5, 0]);
});

seededTest(
  "TokenDraw has top_k off when it is 0 or not below the vocabulary",
  async (draw) => {
    const logits = draw(67, 2);
    const wanted = filterReference(logits, all);
    for (const top_k of [0, 67, 68, 0xffffffff]) {
      const { probs: [row] } = await drawn(logits, [{ ...all, top_k }]);
      assertProbs(row!, wanted, `top_k ${top_k}`);
    }
  },
);

Deno.test("TokenDraw is certain of the first largest logit at temperature 0", async () => {
  const rows = [
    [1, 3, 3, 2, -1],
    [-5, -4, -3, -2, -2],
    [-Infinity, -Infinity, 7, -Infinity, 7],
    [-0, 0, -1, 0, -2],
  ];
  const greedy = { ...all, temperature: 0, top_k: 3, top_p: 0.2, min_p: 0.5 };
  const { probs, tokens } = await drawn(
    Float32Array.from(rows.flat()),
    Array(4).fill(greedy),
  );
  assert.deepEqual(probs.map(kept), [[1], [3], [2], [0]]);
  assert.deepEqual([...tokens], [1, 3, 2, 0]);
  const far = new Float32Array(5000).fill(-1);
  for (const v of [200, 72, 328, 4999, 73]) far[v] = 2;
  const { tokens: [first] } = await drawn(far, [greedy]);
  assert.equal(first, 72);
});

Deno.test("TokenDraw follows the temperature from nearly 0 to very high", async () => {
  const logits = Float32Array.of(1, 2, 1.999, -3e4, 2);
  for (const temperature of [1.2e-38, 1e-30, 1e-6, 1e-3, 0.1, 1, 50, 1e6]) {
    for (const top_p of [1, 0.97]) {
      const settings = { ...all, temperature: Math.fround(temperature), top_p };
      const { probs: [row] } = await drawn(logits, [settings]);
      const label = `T ${temperature}, top_p ${top_p}`;
      assertProbs(row!, filterReference(logits, settings), label);
    }
  }
});

Deno.test("TokenDraw gives no token to a row that holds a NaN or +infinity, and to no other row", async () => {
  const words = new Uint32Array(7 * 131);
  const logits = new Float32Array(words.buffer);
  logits.set(randomNormal(7 * 131, 1));
  const at = (row: number, v: number) => 131 * row + v;
  words[at(1, 130)] = 0x7fc00000;
  words[at(2, 0)] = 0xffc00001; // negative
  words[at(3, 77)] = 0x7f800001; // signalling
  logits[at(4, 64)] = Infinity;
  logits.fill(-Infinity, at(5, 0), at(6, 0));
  logits[at(6, 3)] = -Infinity;
  for (
    const one of [
      all,
      { ...all, temperature: 0 },
      { ...all, top_k: 9, top_p: 0.9, min_p: 0.01 },
    ]
  ) {
    const { probs, tokens } = await drawn(logits, Array(7).fill(one));
    for (const [r, row] of probs.entries()) {
      if (r >= 1 && r <= 5) {
        assert.ok(row.every((p) => Number.isNaN(p)), `row ${r}`);
        assert.equal(tokens[r], NO_TOKEN);
      } else {
        const values = logits.subarray(at(r, 0), at(r + 1, 0));
        assertProbs(row, filterReference(values, one), `row ${r}`);
        assert.ok(row[tokens[r]!]! > 0);
      }
    }
  }
});

/** Draws for each of the steps from one row of logits, at each seed. */
async function picks(
  logits: Float32Array<ArrayBuffer>,
  seeds: readonly number[],
  steps: readonly number[],
  sampling: { topK?: number; topP?: number; minP?: number } = {},
): Promise<Uint32Array[]> {
  const gpu = await testGpu();
  const R = seeds.length;
  const vocab = logits.length;
  using draw = new TokenDraw(gpu, vocab, R);
  using settings = gpu.tensor("settings", "u32", [R, 8]);
  const rows = Float32Array.from(
    { length: R * vocab },
    (_, i) => logits[i % vocab]!,
  );
  using values = gpu.floats("logits", [R, vocab], rows);
  using tokens = gpu.tensor("tokens", "u32", [R]);
  const picked: Uint32Array[] = [];
  for (const step of steps) {
    const one = { temperature: 1, topK: 0, topP: 1, ...sampling };
    const samplings = seeds.map((seed) => ({ ...one, seed }));
    settings.write(samplingSettings(samplings, seeds.map(() => step)));
    gpu.record("draw", (rec) => {
      const isFiltered = Object.keys(sampling).length > 0;
      draw.run(rec, { logits: values, settings }, tokens, isFiltered);
    });
    picked.push(await gpu.readInts(tokens));
  }
  return picked;
}

seededTest(
  "TokenDraw inverts the distribution at the hash of seed and step",
  async (draw) => {
    for (const vocab of [1, 5, 257, 3000]) {
      const logits = draw(vocab, 2);
      const seeds = [...draw(64, 1e9)].map((x) =>
        Math.abs(Math.round(x)) >>> 0
      );
      const steps = [0, 1, 4095, 0xffffffff];
      const probs = filterReference(logits, all);
      const picked = await picks(logits, seeds, steps);
      let nChecked = 0;
      for (const [i, step] of steps.entries()) {
        for (const [r, seed] of seeds.entries()) {
          const { token, margin } = pickReference(probs, seed, step);
          // Running sums in f32 may fall on the other side of a near miss.
          if (margin < 3e-6) continue;
          const label = `seed ${seed}, step ${step}, vocabulary ${vocab}`;
          assert.equal(picked[i]![r], token, label);
          nChecked++;
        }
      }
      assert.ok(nChecked > 200, `${nChecked} of 256 draws were clear`);
    }
  },
);

/** χ² of counts against the shares that are expected of them. */
function chiSquare(
  counts: readonly number[],
  shares: ArrayLike<number>,
): number {
  const n = counts.reduce((a, b) => a + b);
  return counts.reduce((sum, count, i) => {
    const expected = shares[i]! * n;
    if (expected === 0) return count === 0 ? sum : Infinity;
    return sum + (count - expected) ** 2 / expected;
  }, 0);
}

Deno.test("TokenDraw draws each token as often as its probability says", async () => {
  const shares = [0, 0.4, 0.25, 0, 0.15, 0.1, 0.05, 0.03, 0.02, 0];
  const logits = Float32Array.from(shares, Math.log);
  const range = (n: number) => [...Array(n).keys()];
  const bySeed = await picks(logits, range(200), range(10));
  const byStep = await picks(
    logits,
    range(20).map((r) => 77 + 1000 * r),
    range(100),
  );
  const countsOf = (picked: readonly Uint32Array[]) => {
    const counts = shares.map(() => 0);
    for (const token of picked.flatMap((tokens) => [...tokens])) {
      counts[token]!++;
    }
    return counts;
  };
  const counts = countsOf([...bySeed, ...byStep]);
  assert.equal(counts.reduce((a, b) => a + b), 4000);
  // 6 degrees of freedom: above 22.5 once in a thousand times, but the seeds are fixed.
  assert.ok(chiSquare(counts, shares) < 22.5, `counts ${counts}`);

  const filtered = countsOf(
    await picks(logits, range(200), range(5), { topK: 5, minP: 0.2 }),
  );
  const few = { ...all, top_k: 5, min_p: 0.2 };
  const want = filterReference(logits, few);
  assert.equal(want.filter((p) => p > 0).length, 4);
  // 3 degrees of freedom: above 16.3 once in a thousand times.
  assert.ok(chiSquare(filtered, want) < 16.3, `counts ${filtered}`);

  // A token says nothing of the next step's, nor of the next seed's: 36 degrees of freedom, above 67 once in a thousand.
  for (
    const [now, next] of [
      [byStep, byStep.slice(1)],
      [bySeed, bySeed.map((tokens) => tokens.subarray(1))],
    ] as const
  ) {
    const pairs = shares.flatMap(() => shares.map(() => 0));
    for (const [i, tokens] of next.entries()) {
      for (const [r, token] of tokens.entries()) {
        pairs[now[i]![r]! * 10 + token]!++;
      }
    }
    const products = shares.flatMap((p) => shares.map((q) => p * q));
    assert.ok(chiSquare(pairs, products) < 67, `pairs ${pairs}`);
  }
});

seededTest(
  "TokenDraw gives a row the same token whatever lies beside it",
  async (draw) => {
    const vocab = 1500;
    const logits = draw(9 * vocab, 2);
    const row = (r: number) => logits.slice(r * vocab, (r + 1) * vocab);
    const settings = Array.from(
      { length: 9 },
      (_, r) => anySettings(draw, row(r)),
    );
    const { tokens } = await drawn(logits, settings);
    for (const [r, one] of settings.entries()) {
      const { tokens: [alone] } = await drawn(row(r), [one]);
      assert.equal(alone, tokens[r], JSON.stringify(one));
    }
  },
);

Deno.test("TokenDraw never takes a token of probability 0", async () => {
  const vocab = 700;
  const only = [0, 1, 255, 256, 511, 699];
  const logits = new Float32Array(only.length * vocab).fill(-Infinity);
  for (const [r, token] of only.entries()) logits[r * vocab + token] = -50;
  for (const step of Array(10).keys()) {
    for (const top_p of [1, 0.5]) {
      const settings = only.map((_, seed) => ({ ...all, top_p, seed, step }));
      const { tokens } = await drawn(logits, settings);
      assert.deepEqual([...tokens], only);
    }
  }
  // Every other token is left out, between others that are not.
  const many = 40_000;
  const alternate = Float32Array.from({ length: 9 * many }, (_, i) => i % 2);
  for (const step of Array(5).keys()) {
    const settings = Array.from(
      { length: 9 },
      (_, seed) => ({ ...all, top_k: many / 2, seed, step }),
    );
    const { tokens } = await drawn(alternate, settings);
    assert.ok(tokens.every((token) => token % 2 === 1), `${tokens}`);
  }
});
