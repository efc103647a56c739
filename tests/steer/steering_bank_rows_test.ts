import assert from "node:assert/strict";
import type { SaeFile } from "../../core/sae_file.ts";
import {
  type Intervention,
  STEER_MODE_NAMES,
  SteeringBank,
} from "../../steer/interventions.ts";
import { assertClose } from "../assert_close.ts";
import { testGpu } from "../gpu_for_tests.ts";
import { rejectsInOneLine } from "../rejects_in_one_line.ts";
import {
  absolute,
  D_MODEL,
  D_SAE,
  MAXIMUM,
  openOther,
  openSae,
  steered,
  steeredReference,
  stream,
} from "./steered_rows.ts";

// Sums of 100 products of size about 1, and activations of size about 10: f32 errs by 100 · 10 · 2⁻²⁴ ≈ 6e-5.
const ATOL = 1e-4;

for (const encoding of ["relu", "linear"] as const) {
  Deno.test(`SteeringBank.run() matches float64 in every mode when the encoding is ${encoding}`, async () => {
    const { sae, weights } = await openSae();
    const x = stream();
    for (const mode of STEER_MODE_NAMES) {
      // All features, so that some fire and some do not, each alone on its own row.
      const sets = [...Array(D_SAE).keys()].map((feature) => [
        absolute(feature, mode, 1.75),
      ]);
      const rows = new Float32Array(D_SAE * D_MODEL);
      for (let i = 0; i < D_SAE; i++) {
        rows.set(x.subarray(0, D_MODEL), i * D_MODEL);
      }
      const got = await steered(sae, rows, sets, [...sets.keys()], encoding);
      const want = sets.flatMap((set) => [
        ...steeredReference(x.subarray(0, D_MODEL), set, weights, encoding),
      ]);
      assertClose(got, want, { atol: ATOL, label: mode });
      if (mode === "scale" && encoding === "relu") {
        const isSame = (i: number): boolean =>
          got.subarray(i * D_MODEL, (i + 1) * D_MODEL)
            .every((value, j) => value === x[j]);
        const nSame = sets.filter((_, i) => isSame(i)).length;
        assert.ok(nSame > 5 && nSame < 35, `${nSame} features do not fire`);
      }
    }
  });
}

Deno.test("SteeringBank.run() adds the changes of several features when a set has them", async () => {
  const { sae, weights } = await openSae();
  const x = stream();
  const set = [
    absolute(0, "clamp", 4),
    absolute(39, "add", -2),
    absolute(7, "ablate", 0),
    absolute(12, "min", 3),
    absolute(20, "scale", 2.5),
  ];
  const got = await steered(sae, x, [set], [0, 0, 0]);
  const want = steeredReference(x, set, weights, "relu");
  assertClose(got, want, { atol: ATOL, label: "together" });
  const sum = Float64Array.from(x);
  for (const one of set) {
    const alone = await steered(sae, x, [[one]], [0, 0, 0]);
    alone.forEach((value, i) => sum[i]! += value - x[i]!);
  }
  assertClose(got, sum, { atol: ATOL, label: "sum of each alone" });
});

Deno.test("SteeringBank.run() steers every row by its own set when rows differ", async () => {
  const { sae, weights } = await openSae();
  const x = stream();
  const sets = [[absolute(3, "clamp", 6)], [], [
    absolute(3, "clamp", -6),
    absolute(4, "add", 1),
  ]];
  const got = await steered(sae, x, sets, [2, undefined, 0]);
  const row = (values: ArrayLike<number>, t: number): number[] =>
    Array.from(values).slice(t * D_MODEL, (t + 1) * D_MODEL);
  const by = (set: number) => steeredReference(x, sets[set]!, weights, "relu");
  assertClose(row(got, 0), row(by(2), 0), { atol: ATOL, label: "set 2" });
  assert.deepEqual(row(got, 1), row(x, 1));
  assertClose(row(got, 2), row(by(0), 2), { atol: ATOL, label: "set 0" });
  assert.deepEqual(
    row(await steered(sae, x, sets, [1, 1, 1]), 0),
    row(x, 0),
    "an empty set changes nothing",
  );
});

Deno.test("SteeringBank.run() gives the same bits for an ablation and a clamp to 0", async () => {
  const { sae } = await openSae();
  const x = stream();
  const ablated = await steered(
    sae,
    x,
    [[absolute(3, "ablate", 9), absolute(5, "ablate", 2)]],
    [0, 0, 0],
  );
  const clamped = await steered(
    sae,
    x,
    [[absolute(3, "clamp", 0), absolute(5, "clamp", 0)]],
    [0, 0, 0],
  );
  assert.deepEqual(ablated, clamped);
});

Deno.test("SteeringBank.load() takes strengths in units of the maximum when the SAE was measured", async () => {
  const { sae } = await openSae();
  const x = stream();
  for (const mode of ["clamp", "add", "min"] as const) {
    const times = { ...absolute(3, mode, 3), unit: "maximum" } as const;
    assert.deepEqual(
      await steered(sae, x, [[times]], [0, 0, 0]),
      await steered(sae, x, [[absolute(3, mode, 3 * MAXIMUM)]], [0, 0, 0]),
      mode,
    );
  }
  for (const mode of ["scale", "ablate"] as const) {
    const times = { ...absolute(7, mode, 3), unit: "maximum" } as const;
    assert.deepEqual(
      await steered(sae, x, [[times]], [0, 0, 0]),
      await steered(sae, x, [[absolute(7, mode, 3)]], [0, 0, 0]),
      `${mode} has no unit`,
    );
  }
});

Deno.test("SteeringBank.run() takes activations above the thresholds of jumprelu, and above the inference threshold of topk", async () => {
  const { weights } = await openSae();
  const pre = (x: Float32Array, i: number): number =>
    x.reduce(
      (sum, value, j) => sum + value * weights.W_enc![i * D_MODEL + j]!,
      weights.b_enc![i]!,
    );
  const x = stream().slice(0, D_MODEL);
  const positive = [...Array(D_SAE).keys()].filter((i) => pre(x, i) > 0);
  const middle = positive.map((i) => pre(x, i)).sort((a, b) => a - b)[
    positive.length >> 1
  ]!;
  // Between the activations of two features, so that rounding cannot decide.
  const level = middle * 1.001;
  const jumprelu = await openOther(
    { architecture: "jumprelu" },
    Float32Array.from({ length: D_SAE }, (_, i) => i % 4 === 0 ? 0 : level),
  );
  const topk = await openOther({
    architecture: "topk",
    k: 3,
    inferenceThreshold: level,
  });
  const sets = [...Array(D_SAE).keys()].map((i) => [absolute(i, "scale", 3)]);
  const rows = Float32Array.from(
    { length: D_SAE * D_MODEL },
    (_, at) => x[at % D_MODEL]!,
  );
  for (const sae of [jumprelu, topk]) {
    const got = await steered(sae, rows, sets, [...sets.keys()]);
    const thresholdOf = (i: number): number =>
      sae === jumprelu && i % 4 === 0 ? 0 : level;
    const want = sets.flatMap((_, i) => {
      const act = pre(x, i) > thresholdOf(i) ? pre(x, i) : 0;
      return Array.from(
        x,
        (value, j) => value + 2 * act * weights.W_dec![i * D_MODEL + j]!,
      );
    });
    assertClose(got, want, { atol: ATOL, label: sae.architecture });
  }
});

Deno.test("SteeringBank.load() refuses topk without an inference threshold, but for what needs no activation", async () => {
  const sae = await openOther({ architecture: "topk", k: 3 });
  const x = stream();
  await rejectsInOneLine(
    () => steered(sae, x, [[absolute(3, "clamp", 2)]], [0, 0, 0]),
    /^RangeError: Cannot steer with "sae": expected an inference threshold, .*: got none: /,
  );
  const relu = await openOther({ architecture: "relu" });
  for (const encoding of ["relu", "linear"] as const) {
    const mode = encoding === "relu" ? "add" : "clamp";
    const set = [absolute(3, mode, 2)];
    assert.deepEqual(
      await steered(sae, x, [set], [0, 0, 0], encoding),
      await steered(relu, x, [set], [0, 0, 0], encoding),
    );
  }
});

Deno.test("SteeringBank.load() refuses what cannot be steered, in one line", async () => {
  const gpu = await testGpu();
  const { sae } = await openSae();
  const { sae: unmeasured } = await openSae({ measured: false });
  const load = (file: SaeFile, ...set: Intervention[]) => async () => {
    using _ = await SteeringBank.load(gpu, file, [set], { layer: 0 });
  };
  const times = (feature: number): Intervention => ({
    ...absolute(feature, "clamp", 5),
    unit: "maximum",
  });
  const before = gpu.allocatedBytes;
  for (const feature of [40, -1, 1.5, Infinity]) {
    await rejectsInOneLine(
      load(sae, absolute(feature, "clamp", 1)),
      /^RangeError: Cannot steer feature \S+: expected 0 to 39, the features of "sae"$/,
    );
  }
  for (const strength of [NaN, Infinity]) {
    await rejectsInOneLine(
      load(sae, absolute(1, "add", strength)),
      /^RangeError: Cannot steer feature 1: expected a finite strength: got (NaN|Infinity)$/,
    );
  }
  await rejectsInOneLine(
    load(sae, absolute(1, "add", 1e39)),
    /^RangeError: Cannot steer feature 1 by 1e\+39: expected at most 1000000000000000 either way$/,
  );
  await rejectsInOneLine(
    load(sae, absolute(1, "add", 1), absolute(1, "clamp", 2)),
    /^RangeError: Cannot steer feature 1 twice at once/,
  );
  await rejectsInOneLine(
    load(unmeasured, times(1)),
    /^RangeError: Cannot steer feature 1 in units of its maximum: "sae" holds no feature_max: /,
  );
  await rejectsInOneLine(
    load(sae, times(7)),
    /^RangeError: Cannot steer feature 7 in units of its maximum: it never fired /,
  );
  assert.equal(gpu.allocatedBytes, before);
});
