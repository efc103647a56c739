import assert from "node:assert/strict";
import { fileSource } from "../../core/files.ts";
import { Safetensors } from "../../core/safetensors.ts";
import { sampleFilter } from "../../kernels/sample_filter.ts";
import { samplePick } from "../../kernels/sample_pick.ts";
import { assertClose, randomNormal } from "../assert_close.ts";
import { testGpu } from "../gpu_for_tests.ts";
import {
  filterReference,
  type RowSettings,
} from "../reference/sampling_reference.ts";
import { floats, poisoned, runKernel, seededTest } from "./run_kernel.ts";
import { all, NO_TOKEN, pack } from "./sampling_settings.ts";

/** Filters rows of logits, each with settings of its own. */
async function filter(
  logits: Float32Array<ArrayBuffer>,
  settings: readonly RowSettings[],
): Promise<Float32Array[]> {
  const R = settings.length;
  const vocab = logits.length / R;
  const { probs } = await runKernel(sampleFilter, {
    logits: floats([R, vocab], logits),
    settings: pack(settings),
    probs: poisoned([R, vocab]),
  });
  return settings.map((_, r) => probs!.subarray(r * vocab, (r + 1) * vocab));
}

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
  assert.deepEqual(kept(got), wantKept, `tokens of ${label}`);
}

Deno.test("sampleFilter() gives Hugging Face's probabilities", async () => {
  const path =
    new URL("../fixtures/sampling/expected.safetensors", import.meta.url)
      .pathname;
  using source = await fileSource(path);
  const file = await Safetensors.open(source);
  const logits = await file.floats("logits");
  const names = [...file.tensors.keys()].filter((name) => name !== "logits");
  assert.equal(names.length, 4);
  for (const name of names) {
    const [, t, p, k] = /^probs\.t([\d.]+)\.p([\d.]+)\.k(\d+)$/.exec(name)!;
    const settings = {
      ...all,
      temperature: Number(t),
      top_p: Number(p),
      top_k: Number(k),
    };
    const rows = await filter(logits, Array(6).fill(settings));
    const want = await file.floats(name);
    for (const [r, row] of rows.entries()) {
      assertProbs(row, want.subarray(211 * r, 211 * (r + 1)), `${name}[${r}]`);
    }
  }
});

Deno.test("sampleFilter() keeps all ties with the k-th logit, and those at top_p", async () => {
  const check = async (
    logits: number[],
    settings: Partial<RowSettings>,
    kept: number[],
  ) => {
    const [row] = await filter(Float32Array.from(logits), [{
      ...all,
      ...settings,
    }]);
    const want = filterReference(logits, { ...all, ...settings });
    assertProbs(row!, want, JSON.stringify(settings));
    assert.deepEqual([...row!.keys()].filter((v) => row![v]! > 0), kept);
  };
  await check([3, 1, 2, 2, 2, 0], { top_k: 2 }, [0, 2, 3, 4]);
  await check([3, 1, 2, 2, 2, 0], { top_k: 4 }, [0, 2, 3, 4]);
  await check([3, 1, 2, 2, 2, 0], { top_k: 5 }, [0, 1, 2, 3, 4]);
  await check([0, -0, -1], { top_k: 1 }, [0, 1]);
  await check([-1, -2, -3, -1.5], { top_k: 2 }, [0, 3]);
  await check([5, 5, 5, 5], { top_p: 0.3 }, [0, 1, 2, 3]);
  await check([2, 5, 2, 2], { top_p: 0.85 }, [1]);
  await check([2, 5, 2, 2], { top_p: 0.9 }, [0, 1, 2, 3]);
});

Deno.test("sampleFilter() tells logits apart that differ in their last bit", async () => {
  const n = 33;
  const steps = Float32Array.from({ length: n }, (_, i) => 1 + i * 2 ** -23);
  const logits = [...steps, ...steps.map((x) => -x)];
  const settings = [1, 2, 7, 18, 33, 34, 40, 65].map((top_k) => ({
    ...all,
    top_k,
  }));
  const rows = await filter(
    Float32Array.from(settings.flatMap(() => logits)),
    settings,
  );
  for (const [r, row] of rows.entries()) {
    assertProbs(
      row,
      filterReference(logits, settings[r]!),
      `top_k ${settings[r]!.top_k}`,
    );
    assert.equal(row.filter((p) => p > 0).length, settings[r]!.top_k);
  }
});

Deno.test("sampleFilter() keeps everything at top_p = 1 and the likeliest at top_p = 0", async () => {
  const logits = Float32Array.of(0, -40, -80, 0, -10);
  const settings = [1, 0, 1e-9].map((top_p) => ({ ...all, top_p }));
  const rows = Float32Array.from([...logits, ...logits, ...logits]);
  const [one, zero, little] = await filter(rows, settings);
  assertProbs(one!, filterReference(logits, all), "top_p 1");
  assert.ok(one!.every((p) => p > 0));
  assert.deepEqual([...zero!], [0.5, 0, 0, 0.5, 0]);
  assert.deepEqual([...little!], [0.5, 0, 0, 0.5, 0]);
});

seededTest(
  "sampleFilter() has top_k off when it is 0 or not below the vocabulary",
  async (draw) => {
    const logits = draw(67, 2);
    const wanted = filterReference(logits, all);
    for (const top_k of [0, 67, 68, 0xffffffff]) {
      const [row] = await filter(logits, [{ ...all, top_k }]);
      assertProbs(row!, wanted, `top_k ${top_k}`);
    }
  },
);

Deno.test("sampleFilter() is certain of the first largest logit at temperature 0", async () => {
  const rows = [
    [1, 3, 3, 2, -1],
    [-5, -4, -3, -2, -2],
    [-Infinity, -Infinity, 7, -Infinity, 7],
    [-0, 0, -1, 0, -2],
  ];
  const greedy = { ...all, temperature: 0, top_k: 3, top_p: 0.2 };
  const got = await filter(
    Float32Array.from(rows.flat()),
    Array(4).fill(greedy),
  );
  assert.deepEqual(got.map((row) => [...row]), [
    [0, 1, 0, 0, 0],
    [0, 0, 0, 1, 0],
    [0, 0, 1, 0, 0],
    [1, 0, 0, 0, 0],
  ]);
});

Deno.test("sampleFilter() finds the first of equal logits that are far apart", async () => {
  const logits = new Float32Array(1000).fill(-1);
  for (const v of [200, 72, 328, 999, 73]) logits[v] = 2;
  const [row] = await filter(logits, [{ ...all, temperature: 0 }]);
  assert.deepEqual([...row!.keys()].filter((v) => row![v] !== 0), [72]);
});

Deno.test("sampleFilter() follows the temperature from nearly 0 to very high", async () => {
  const logits = Float32Array.of(1, 2, 1.999, -3e4, 2);
  for (const temperature of [1.2e-38, 1e-30, 1e-6, 1e-3, 0.1, 1, 50, 1e6]) {
    const settings = { ...all, temperature: Math.fround(temperature) };
    const [row] = await filter(logits, [settings]);
    assertProbs(row!, filterReference(logits, settings), `T ${temperature}`);
  }
});

Deno.test("sampleFilter() makes a row NaN when it holds a NaN or +infinity, and no other row", async () => {
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
  for (const temperature of [1, 0]) {
    const settings = { ...all, temperature, top_k: 9, top_p: 0.9 };
    const gpu = await testGpu();
    using owned = new DisposableStack();
    const tensors = {
      logits: owned.use(gpu.upload("logits", "f32", [7, 131], words)),
      settings: owned.use(
        gpu.upload(
          "settings",
          "u32",
          [7, 8],
          pack(Array(7).fill(settings)).values,
        ),
      ),
      probs: owned.use(gpu.tensor("probs", "f32", [7, 131])),
      tokens: owned.use(gpu.tensor("tokens", "u32", [7])),
    };
    gpu.record("sample", (rec) => {
      sampleFilter.run(rec, tensors);
      samplePick.run(rec, tensors);
    });
    const probs = await gpu.read(tensors.probs);
    const tokens = await gpu.readInts(tensors.tokens);
    for (let r = 0; r < 7; r++) {
      const row = probs.subarray(at(r, 0), at(r + 1, 0));
      if (r >= 1 && r <= 5) {
        assert.ok(row.every((p) => Number.isNaN(p)), `row ${r}`);
        assert.equal(tokens[r], NO_TOKEN);
      } else {
        assertProbs(
          row,
          filterReference(logits.subarray(at(r, 0), at(r + 1, 0)), settings),
          `row ${r}`,
        );
        assert.ok(row[tokens[r]!]! > 0);
      }
    }
  }
});

seededTest(
  "sampleFilter() matches float64 for rows of every width with settings of their own",
  async (draw) => {
    for (const vocab of [1, 2, 63, 128, 129, 1000]) {
      const settings: RowSettings[] = [
        all,
        { ...all, temperature: 0.7 },
        { ...all, top_k: 1 },
        { ...all, temperature: 1.5, top_k: Math.ceil(vocab / 3) },
      ];
      const logits = draw(4 * vocab, 3);
      const rows = await filter(logits, settings);
      for (const [r, row] of rows.entries()) {
        const want = filterReference(
          logits.subarray(r * vocab, (r + 1) * vocab),
          settings[r]!,
        );
        assertProbs(row, want, `row ${r} of vocabulary ${vocab}`);
      }
    }
  },
);

seededTest(
  "sampleFilter() matches float64 on a vocabulary of 100,352",
  async (draw) => {
    const vocab = 100_352;
    const logits = draw(vocab, 3);
    const descending = [...filterReference(logits, all)].sort((a, b) => b - a);
    // top_p in the middle of the n-th token's mass, so that rounding cannot move the cut.
    const topP = (n: number) =>
      descending.slice(0, n).reduce((a, b) => a + b) - descending[n - 1]! / 2;
    const settings: RowSettings[] = [
      all,
      { ...all, top_k: 50 },
      { ...all, top_p: topP(40) },
      { ...all, top_k: 90_000, top_p: topP(300) },
    ];
    const rows = await filter(
      Float32Array.from({ length: 4 * vocab }, (_, i) => logits[i % vocab]!),
      settings,
    );
    for (const [r, row] of rows.entries()) {
      const want = filterReference(logits, settings[r]!);
      assertProbs(row, want, `row ${r}`);
    }
  },
);
