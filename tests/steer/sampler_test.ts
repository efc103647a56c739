import assert from "node:assert/strict";
import type { Tensor } from "../../gpu/mod.ts";
import { Sampler } from "../../steer/sampler.ts";
import {
  checkSamplingSettings,
  GREEDY,
  type Sampling,
} from "../../steer/sampling.ts";
import { assertClose, randomNormal } from "../assert_close.ts";
import { testGpu } from "../gpu_for_tests.ts";
import { seededTest } from "../kernels/run_kernel.ts";
import {
  filterReference,
  penalizeReference,
  pickReference,
} from "../reference/sampling_reference.ts";
import { rejectsInOneLine } from "../rejects_in_one_line.ts";
import { NO_TOKEN } from "./drawn.ts";

const VOCAB = 301;
const PLAIN: Sampling = { temperature: 0.9, topK: 0, topP: 1, seed: 5 };

/** One kind of settings a row. */
const KINDS: readonly Partial<Sampling>[] = [
  {},
  { repetitionPenalty: 1.4 },
  { presencePenalty: 1.5, temperature: 0 },
  { frequencyPenalty: 0.7 },
  { logitBias: new Map([[3, 2.5], [299, -100], [12, -Infinity]]) },
  {
    repetitionPenalty: 0.6,
    presencePenalty: -0.5,
    frequencyPenalty: -0.25,
    logitBias: new Map([[0, -3], [5, 100], [7, -0.5]]),
  },
  { topK: 20, topP: 0.9, minP: 0.02 },
];

/** A reply as the test follows it. */
interface Followed {
  readonly sampling: Sampling;
  readonly prompt: readonly number[];
  readonly reply: number[];
}

/** What float64 makes of the logits of one reply. */
function penalized(
  logits: Float32Array,
  { sampling, prompt, reply }: Followed,
): Float64Array {
  return penalizeReference(logits, {
    repetition: sampling.repetitionPenalty ?? 1,
    presence: sampling.presencePenalty ?? 0,
    frequency: sampling.frequencyPenalty ?? 0,
    bias: sampling.logitBias ?? new Map(),
    prompt,
    reply,
  });
}

/** The token that float64 draws, and how clearly. */
function pick(logits: Float64Array, { sampling, reply }: Followed) {
  const probs = filterReference(logits, {
    temperature: sampling.temperature,
    top_p: sampling.topP,
    top_k: sampling.topK,
    min_p: sampling.minP ?? 0,
    seed: sampling.seed,
    step: reply.length,
  });
  return pickReference(probs, sampling.seed, reply.length);
}

/**
 * Samples several steps ahead without a look at the tokens, and holds logits and tokens of each
 * against float64. Logits are of few kinds, so that tokens recur.
 */
async function assertSteps(
  sampler: Sampler,
  table: ReadonlyMap<number, Followed>,
  rows: readonly number[],
  draw: (n: number, scale?: number) => Float32Array<ArrayBuffer>,
  nSteps = 5,
): Promise<void> {
  const gpu = await testGpu();
  using owned = new DisposableStack();
  const R = rows.length;
  const sampled: { before: Float32Array; logits: Tensor; tokens: Tensor }[] =
    [];
  for (let step = 0; step < nSteps; step++) {
    const before = draw(R * VOCAB, 1).map((x, i) => i % VOCAB < 9 ? x + 5 : x);
    const logits = owned.use(gpu.floats("logits", [R, VOCAB], before));
    const unset = new Uint32Array(R).fill(9);
    const tokens = owned.use(gpu.upload("tokens", "u32", [R], unset));
    const steps = rows.map((row) => table.get(row)!.reply.length + step);
    gpu.record("sample", (rec) => {
      sampler.sample(rec, logits, rows, steps, tokens);
    });
    sampled.push({ before, logits, tokens });
  }
  let nClear = 0;
  for (const [step, { before, logits, tokens }] of sampled.entries()) {
    const got = await gpu.read(logits);
    const ids = await gpu.readInts(tokens);
    for (const [i, row] of rows.entries()) {
      const label = `row ${row}, step ${step}`;
      const one = table.get(row)!;
      const part = (all: Float32Array) =>
        all.subarray(i * VOCAB, (i + 1) * VOCAB);
      const want = penalized(part(before), one);
      const finite = (x: number) => x === -Infinity ? -1e30 : x;
      assertClose(part(got).map(finite), want.map(finite), {
        atol: 1e-5,
        rtol: 1e-6,
        label,
      });
      const { token, margin } = pick(want, one);
      if (margin > 1e-5) {
        assert.equal(ids[i], token, label);
        nClear++;
      }
      one.reply.push(ids[i]!);
    }
  }
  assert.ok(nClear > 0.7 * nSteps * R, `${nClear} draws were clear`);
}

seededTest(
  "Sampler penalizes and biases each row by its own settings, prompt and reply, several steps ahead",
  async (draw) => {
    using sampler = new Sampler(await testGpu(), VOCAB, 9);
    const table = new Map<number, Followed>();
    const begin = (row: number, kind: number) => {
      const prompt = [1, 5, kind, 8, 5, 200 + row];
      const sampling = { ...PLAIN, ...KINDS[kind], seed: 7 * row + kind };
      sampler.begin(row, sampling, prompt);
      table.set(row, { sampling, prompt, reply: [] });
    };
    for (const kind of KINDS.keys()) begin(kind, kind);
    await assertSteps(sampler, table, [...KINDS.keys()], draw);
    // Rows leave, others take their places or come in between; the rest go on where they were.
    begin(1, 5);
    begin(8, 3);
    begin(5, 0);
    await assertSteps(sampler, table, [8, 3, 6, 1, 5], draw);
    await assertSteps(sampler, table, [2], draw, 3);
    await assertSteps(sampler, table, [0, 6], draw, 2);
    begin(5, 4);
    await assertSteps(sampler, table, [4, 5, 1, 2, 8, 3, 0], draw);
  },
);

Deno.test("Sampler gives a reply the same tokens alone and among others that come and go", async () => {
  const gpu = await testGpu();
  const steps = [...Array(12).keys()];
  const sampling = {
    ...PLAIN,
    ...KINDS[5],
    logitBias: new Map([[5, 2]]),
    topK: 50,
    seed: 99,
  };
  const logitsOf = (step: number) => randomNormal(VOCAB, 40 + step, 2);
  const reply = async (
    row: number,
    beside: (step: number) => number[],
  ): Promise<number[]> => {
    using sampler = new Sampler(gpu, VOCAB, 9);
    sampler.begin(row, sampling, [4, 4, 9]);
    const ids: number[] = [];
    for (const step of steps) {
      const rows = [...beside(step), row];
      for (const other of beside(step)) {
        const kind = KINDS[(other + step) % KINDS.length];
        sampler.begin(other, { ...PLAIN, ...kind, seed: other }, [step]);
      }
      const values = new Float32Array(VOCAB * rows.length);
      for (const [i, other] of rows.entries()) {
        const own = other === row;
        const logits = own ? logitsOf(step) : randomNormal(VOCAB, other);
        values.set(logits, i * VOCAB);
      }
      using logits = gpu.floats("logits", [rows.length, VOCAB], values);
      using tokens = gpu.tensor("tokens", "u32", [rows.length]);
      const ages = rows.map((other) => other === row ? step : 3 * other);
      gpu.record("sample", (rec) => {
        sampler.sample(rec, logits, rows, ages, tokens);
      });
      ids.push((await gpu.readInts(tokens)).at(-1)!);
    }
    return ids;
  };
  const alone = await reply(0, () => []);
  assert.ok(new Set(alone).size > 6, `${alone}`);
  assert.deepEqual(await reply(4, (step) => step % 3 === 0 ? [] : [8]), alone);
  assert.deepEqual(
    await reply(7, (step) => [1, 3, 0, 2].slice(step % 4)),
    alone,
  );
});

Deno.test("Sampler never takes a forbidden token, and takes the only one that is left", async () => {
  const gpu = await testGpu();
  using sampler = new Sampler(gpu, VOCAB, 2);
  const forbidden = (but: number) =>
    new Map(
      [...Array(VOCAB).keys()].flatMap((token) =>
        token === but ? [] : [[token, -Infinity] as const]
      ),
    );
  sampler.begin(0, { ...GREEDY, logitBias: new Map([[7, -Infinity]]) }, [1]);
  sampler.begin(
    1,
    { ...PLAIN, topP: 0.9, logitBias: forbidden(250) },
    [1],
  );
  const values = randomNormal(2 * VOCAB, 3);
  values[7] = 50;
  values[70] = 40;
  using logits = gpu.floats("logits", [2, VOCAB], values);
  using tokens = gpu.tensor("tokens", "u32", [2]);
  gpu.record("sample", (rec) => {
    sampler.sample(rec, logits, [0, 1], [0, 0], tokens);
  });
  assert.deepEqual([...await gpu.readInts(tokens)], [70, 250]);
});

Deno.test("Sampler gives no token where a logit is not finite, though it is biased and penalized", async () => {
  const gpu = await testGpu();
  const odd = [0x7fc00000, 0xffc00001, 0x7f800000];
  for (const bias of [3, -Infinity]) {
    using sampler = new Sampler(gpu, VOCAB, 4);
    const sampling = {
      ...PLAIN,
      repetitionPenalty: 1.3,
      presencePenalty: 1,
      logitBias: new Map([[6, bias]]),
    };
    const values = randomNormal(4 * VOCAB, 3);
    for (const [r, word] of odd.entries()) {
      new Uint32Array(values.buffer)[r * VOCAB + 6] = word;
    }
    const rows = [0, 1, 2, 3];
    for (const row of rows) sampler.begin(row, sampling, [6, 6]);
    using logits = gpu.floats("logits", [4, VOCAB], values);
    using tokens = gpu.tensor("tokens", "u32", [4]);
    gpu.record("sample", (rec) => {
      sampler.sample(rec, logits, rows, [0, 0, 0, 0], tokens);
    });
    const got = [...await gpu.readInts(tokens)];
    assert.deepEqual(got.slice(0, 3), Array(3).fill(NO_TOKEN));
    assert.ok(got[3]! < VOCAB);
  }
});

Deno.test("Sampler launches and holds only what the settings of a batch need", async () => {
  const gpu = await testGpu();
  const before = gpu.allocatedBytes;
  {
    using sampler = new Sampler(gpu, VOCAB, 3);
    const launched = (...samplings: Sampling[]) => {
      using logits = gpu.tensor("logits", "f32", [samplings.length, VOCAB]);
      using tokens = gpu.tensor("tokens", "u32", [samplings.length]);
      const rows = [...samplings.keys()];
      for (const row of rows) sampler.begin(row, samplings[row]!, [1]);
      let names: string[] = [];
      gpu.record("sample", (rec) => {
        sampler.sample(rec, logits, rows, rows.map(() => 0), tokens);
        names = [...rec.launched].map((name) => name.replace("sample_", ""));
      });
      return names.join(" ");
    };
    const small = gpu.allocatedBytes;
    assert.equal(launched(GREEDY, PLAIN), "peaks bounds pick");
    assert.equal(launched({ ...GREEDY, topP: 0.5 }), "peaks bounds pick");
    assert.equal(gpu.allocatedBytes, small);
    const filtered = "peaks bounds collect threshold pick";
    assert.equal(launched(PLAIN, { ...PLAIN, topK: 3 }), filtered);
    assert.equal(launched({ ...PLAIN, minP: 0.1 }), filtered);
    assert.equal(
      launched(GREEDY, { ...GREEDY, logitBias: new Map([[1, 1]]) }),
      "bias peaks bounds pick",
    );
    const unpenalized = gpu.allocatedBytes;
    assert.equal(
      launched({ ...GREEDY, presencePenalty: 1 }, PLAIN),
      "penalize peaks bounds pick count",
    );
    assert.equal(gpu.allocatedBytes - unpenalized, 3 * 4 * (VOCAB + 5));
    assert.equal(launched(GREEDY, PLAIN), "peaks bounds pick");
  }
  await gpu.read(gpu.tensor("wait", "f32", [1]));
  assert.equal(gpu.allocatedBytes - before, 4);
});

Deno.test("Sampler refuses rows without a reply and more rows than fit, in one line", async () => {
  const gpu = await testGpu();
  using sampler = new Sampler(gpu, VOCAB, 3);
  using logits = gpu.tensor("logits", "f32", [1, VOCAB]);
  using tokens = gpu.tensor("tokens", "u32", [1]);
  await rejectsInOneLine(
    () =>
      gpu.record("sample", (rec) => {
        sampler.sample(rec, logits, [2], [0], tokens);
      }),
    /^RangeError: Cannot sample row 2: expected a reply that has begun: got none$/,
  );
  await rejectsInOneLine(
    () => new Sampler(gpu, VOCAB, 2 ** 26),
    /^RangeError: Cannot sample 67108864 replies at once: expected at most \d+, .*: ask for fewer at a time$/,
  );
});

Deno.test("checkSamplingSettings() refuses what is out of range, in one line that names it", async () => {
  checkSamplingSettings(GREEDY, 10);
  for (const kind of KINDS) {
    checkSamplingSettings({ ...PLAIN, ...kind }, VOCAB);
  }
  const bias = (...pairs: [number, number][]) => ({
    logitBias: new Map(pairs),
  });
  const cases: [Partial<Sampling>, RegExp][] = [
    [{ temperature: -1 }, /with temperature of -1: expected .* 0 or more$/],
    [{ temperature: Infinity }, /with temperature of Infinity/],
    [{ topP: 1.1 }, /with top-p of 1.1: expected a number from 0 to 1$/],
    [{ topK: 0.5 }, /with top-k of 0.5: expected a whole number/],
    [{ seed: 2 ** 32 }, /with seed of 4294967296/],
    [{ minP: 1.5 }, /with min-p of 1.5/],
    [{ minP: NaN }, /with min-p of NaN/],
    [{ repetitionPenalty: 0 }, /with a repetition penalty of 0: .* above 0$/],
    [{ repetitionPenalty: NaN }, /with a repetition penalty of NaN/],
    [{ presencePenalty: Infinity }, /with a presence penalty of Infinity/],
    [{ frequencyPenalty: NaN }, /with a frequency penalty of NaN/],
    [bias([10, 1]), /bias token 10: expected an id from 0 to 9$/],
    [bias([-1, 1]), /bias token -1/],
    [bias([0.5, 1]), /bias token 0.5/],
    [bias([3, 101]), /bias token 3 by 101: expected a number from -100 to 100/],
    [bias([3, Infinity]), /bias token 3 by Infinity/],
    [bias([3, NaN]), /bias token 3 by NaN/],
    [
      bias(...Array.from({ length: 10 }, (_, i): [number, number] => [
        i,
        -Infinity,
      ])),
      /with all 10 tokens forbidden: /,
    ],
  ];
  for (const [wrong, pattern] of cases) {
    await rejectsInOneLine(
      () => checkSamplingSettings({ ...GREEDY, ...wrong }, 10),
      new RegExp(`^RangeError: Cannot (sample |)${pattern.source}`),
    );
  }
});
