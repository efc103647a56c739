import assert from "node:assert/strict";
import { Rng } from "../../core/rng.ts";
import type { Dtype, Gpu, Tensor } from "../../gpu/mod.ts";
import {
  copyTopK,
  keepTopK,
  selectTopK,
  topKTensors,
} from "../../kernels/sae_topk.ts";
import { testGpu } from "../gpu_for_tests.ts";
import { rejectsInOneLine } from "../rejects_in_one_line.ts";

/** What is selected from `[T, d_sae]`. */
interface Case {
  readonly acts: Float32Array<ArrayBuffer>;
  readonly T: number;
  readonly k: number;
  /** Whether all rows share the k·T largest. */
  readonly isBatch: boolean;
  /** Features of a window; all when absent. */
  readonly size?: number;
  /** Marks of the features, and the least of one that takes part. */
  readonly marks?: Uint32Array<ArrayBuffer>;
  readonly least?: number;
}

/** Rows of every kind: dense, sparse, empty, one value only, few values with many ties, and tiny and huge ones. */
function randomActs(T: number, d_sae: number): Float32Array<ArrayBuffer> {
  const rng = new Rng(5);
  const kinds = [
    () => Math.max(0, rng.normal()),
    () => rng.uniform() < 0.05 ? rng.uniform() : 0,
    () => 0,
    () => 1.5,
    () => rng.below(4),
    () => Math.max(0, rng.normal()) * 2 ** (rng.below(200) - 120),
    () => 1 + rng.below(5) * 2 ** -23,
  ];
  return Float32Array.from(
    { length: T * d_sae },
    (_, at) => kinds[Math.floor(at / d_sae) % kinds.length]!(),
  );
}

/** The selection by sorting, and the least value kept in each slot. */
function sorted(
  { acts, T, k, isBatch, marks, least = 0 }: Case,
): { kept: Float32Array; thresholds: number[] } {
  const d_sae = acts.length / T;
  const takesPart = (at: number) =>
    acts[at]! > 0 && (least === 0 || marks![at % d_sae]! >= least);
  const kept = new Float32Array(acts.length);
  const thresholds: number[] = [];
  const width = isBatch ? acts.length : d_sae;
  for (let first = 0; first < acts.length; first += width) {
    const places = Array.from({ length: width }, (_, i) => first + i)
      .filter(takesPart).sort((a, b) => acts[b]! - acts[a]!);
    const last = places[Math.min(isBatch ? k * T : k, places.length) - 1];
    const threshold = last === undefined ? 0 : acts[last]!;
    thresholds.push(threshold);
    for (const at of places) if (acts[at]! >= threshold) kept[at] = acts[at]!;
  }
  return { kept, thresholds };
}

/** The selection by the kernels; `inPlace` leaves the marks out. */
async function selected(
  gpu: Gpu,
  test: Case,
  inPlace: boolean,
  isQuick = true,
): Promise<{ kept: Float32Array; thresholds: number[]; counts: Uint32Array }> {
  const { acts, T, k, isBatch, marks, least = 0 } = test;
  const d_sae = acts.length / T;
  const { size = d_sae } = test;
  const slots = isBatch ? 1 : T;
  using owned = new DisposableStack();
  // More rows than are selected from, with rubbish from before.
  const { counts, thresholds, ...quick } = topKTensors(
    (label, dtype, shape) => {
      const values = new Uint32Array(shape.reduce((n, size) => n * size, 1))
        .fill(label.endsWith("counts") ? 0 : 0x3f812345);
      return owned.use(gpu.upload(label, dtype, shape, values));
    },
    {
      T: T + 2,
      windows: Array.from(
        { length: Math.ceil(d_sae / size) },
        (_, w) => Math.min(size, d_sae - w * size),
      ),
      k,
      isBatch,
    },
  );
  const tensors = { counts, thresholds, ...(isQuick && quick) };
  const windows: { acts: Tensor; marks?: Tensor; kept: Tensor }[] = [];
  for (let start = 0; start < d_sae; start += size) {
    const n = Math.min(size, d_sae - start);
    const part = new Float32Array(T * n);
    for (let t = 0; t < T; t++) {
      const row = t * d_sae + start;
      part.set(acts.subarray(row, row + n), t * n);
    }
    const some = marks?.slice(start, start + n);
    windows.push({
      acts: owned.use(gpu.floats("acts", [T, n], part)),
      kept: owned.use(gpu.floats("kept", [T, n], part.fill(NaN))),
      ...(some && { marks: owned.use(gpu.upload("marks", "u32", [n], some)) }),
    });
  }
  gpu.record("topk", (rec) => {
    const options = { k: isBatch ? k * T : k, least };
    selectTopK(rec, windows, tensors, options);
    for (const window of windows) {
      copyTopK(rec, window, window.kept, tensors, least);
      if (inPlace) keepTopK(rec, window.acts, tensors);
    }
  });
  const kept = new Float32Array(acts.length);
  for (const [w, window] of windows.entries()) {
    const n = window.acts.shape[1]!;
    const copied = await gpu.read(window.kept);
    const left = await gpu.read(window.acts);
    if (inPlace) assert.deepEqual(left, copied);
    for (let t = 0; t < T; t++) {
      const row = copied.subarray(t * n, (t + 1) * n);
      kept.set(row, t * d_sae + w * size);
    }
  }
  const words = await gpu.readInts(tensors.thresholds);
  const values = new Float32Array(words.buffer);
  return {
    kept,
    thresholds: Array.from({ length: slots }, (_, s) => values[2 * s]!),
    counts: await gpu.readInts(tensors.counts),
  };
}

async function compare(test: Case): Promise<void> {
  const inPlace = test.least === undefined;
  const want = sorted(test);
  for (const isQuick of [true, false]) {
    const got = await selected(await testGpu(), test, inPlace, isQuick);
    assert.deepEqual(got.thresholds, want.thresholds);
    assert.deepEqual(got.kept, want.kept);
    assert.ok(got.counts.every((n) => n === 0), "counts are left behind");
  }
}

for (
  const [T, d_sae] of [[1, 1], [8, 63], [9, 129], [14, 1537]] as const
) {
  for (const isBatch of [false, true]) {
    const kind = isBatch ? "of all rows" : "of each row";
    Deno.test(`selectTopK() finds the k largest ${kind} as sorting does for [${T}, ${d_sae}]`, async () => {
      const acts = randomActs(T, d_sae);
      for (const k of new Set([1, 2, Math.ceil(d_sae / 3), d_sae])) {
        await compare({ acts, T, k, isBatch });
      }
    });
  }
}

for (const [T, d_sae] of [[9, 129], [14, 1537]] as const) {
  for (const isBatch of [false, true]) {
    const kind = isBatch ? "of all rows" : "of each row";
    Deno.test(`selectTopK() finds the k largest ${kind} over windows for [${T}, ${d_sae}]`, async () => {
      const acts = randomActs(T, d_sae);
      for (const size of [64, 1000].filter((size) => size < d_sae)) {
        await compare({ acts, T, k: 7, isBatch, size });
      }
    });
  }
}

Deno.test("selectTopK() leaves features out whose marks are too small", async () => {
  const [T, d_sae] = [8, 301];
  const acts = randomActs(T, d_sae);
  const marks = Uint32Array.from(
    { length: d_sae },
    (_, i) => i % 3 === 0 ? 4_000_000_000 : i,
  );
  for (const isBatch of [false, true]) {
    for (const least of [1, 200, 3_999_999_999, 4_100_000_000]) {
      await compare({ acts, T, k: 5, isBatch, marks, least });
      await compare({ acts, T, k: 5, isBatch, marks, least, size: 100 });
    }
  }
});

Deno.test("selectTopK() gives the same bits when run again", async () => {
  const gpu = await testGpu();
  const test = { acts: randomActs(14, 1537), T: 14, k: 31, isBatch: true };
  const first = await selected(gpu, test, true);
  assert.deepEqual(await selected(gpu, test, true), first);
});

Deno.test("keepTopK() keeps what is not finite in sight, and takes -0 for 0", async () => {
  const acts = Float32Array.of(1, NaN, -0, 3, 2, Infinity, -Infinity, -2);
  for (const isBatch of [false, true]) {
    for (const k of [1, 3]) {
      const test = { acts, T: 1, k, isBatch };
      const { kept, thresholds } = await selected(await testGpu(), test, true);
      assert.deepEqual(
        Array.from(kept, (value) => Number.isFinite(value)),
        [true, false, true, true, true, false, false, true],
      );
      assert.deepEqual([...kept].filter(Number.isFinite), [0, 0, 0, 0, 0]);
      assert.deepEqual(thresholds, [Infinity]);
    }
    const { kept } = await selected(
      await testGpu(),
      { acts, T: 1, k: 4, isBatch },
      true,
    );
    assert.deepEqual([...kept].filter(Number.isFinite), [0, 0, 3, 0, 0]);
  }
});

Deno.test("selectTopK() refuses sizes that do not fit, in one line", async () => {
  const gpu = await testGpu();
  using owned = new DisposableStack();
  const tensor = (label: string, dtype: Dtype, shape: readonly number[]) =>
    owned.use(gpu.tensor(label, dtype, shape));
  const acts = tensor("acts", "f32", [3, 5]);
  const marks = tensor("marks", "u32", [4]);
  const select = (T: number, k: number, least: number, n = 1) => () => {
    const windows = Array<number>(n).fill(5);
    const shape = { T, windows, k: 1, isBatch: false };
    const tensors = topKTensors(tensor, shape);
    gpu.record("topk", (rec) => {
      selectTopK(rec, [{ acts, marks }], tensors, { k, least });
    });
    return Promise.resolve();
  };
  await rejectsInOneLine(
    async () => await select(2, 1, 0)(),
    /^RangeError: .*of 3 rows: expected at most 2$/,
  );
  for (const k of [0, 1.5, NaN, 2 ** 32]) {
    await rejectsInOneLine(
      async () => await select(3, k, 0)(),
      /^RangeError: .*positive number/,
    );
  }
  await rejectsInOneLine(
    async () => await select(3, 1, 1)(),
    /^RangeError: .*a mark for each/,
  );
  await rejectsInOneLine(
    async () => await select(3, 1, 0, 2)(),
    /^RangeError: .*expected 2 windows: got 1$/,
  );
});
