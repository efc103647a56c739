import { deepEqual } from "node:assert/strict";
import { f32ToBf16 } from "../../core/dtype.ts";
import type { Gpu, Recorder, Tensor } from "../../gpu/mod.ts";
import { adam } from "../../kernels/adam.ts";
import { adamRows } from "../../kernels/adam_rows.ts";
import { columnSums } from "../../kernels/column_sums.ts";
import { rowNorms } from "../../kernels/row_norms.ts";
import { saeFeatureStats } from "../../kernels/sae_feature_stats.ts";
import { saeFeatureSums } from "../../kernels/sae_feature_sums.ts";
import { saeStepStatus } from "../../kernels/sae_step_status.ts";
import { squareParts, sumSquares } from "../../kernels/sum_squares.ts";
import { unpackBatch } from "../../kernels/unpack_batch.ts";
import { assertClose, poison, randomNormal } from "../assert_close.ts";
import { testGpu } from "../gpu_for_tests.ts";
import * as reference from "../reference/sae_reference.ts";

const [B, D, F] = [13, 23, 57];

/** Tensors that live as long as the test. */
class Bench implements Disposable {
  readonly gpu: Gpu;
  readonly #owned = new DisposableStack();

  private constructor(gpu: Gpu) {
    this.gpu = gpu;
  }

  static async open(): Promise<Bench> {
    return new Bench(await testGpu());
  }

  floats(label: string, shape: number[], values: Float32Array): Tensor {
    const copy = Float32Array.from(values);
    return this.#owned.use(this.gpu.floats(label, shape, copy));
  }

  ints(label: string, values: number[]): Tensor {
    const shape = [values.length];
    const words = Uint32Array.from(values);
    return this.#owned.use(this.gpu.upload(label, "u32", shape, words));
  }

  /** A tensor of NaN that a kernel must write whole. */
  poisoned(label: string, shape: number[]): Tensor {
    const n = shape.reduce((product, size) => product * size, 1);
    return this.floats(label, shape, poison(n));
  }

  record(fill: (rec: Recorder) => void): void {
    this.gpu.record("test", fill);
  }

  read(tensor: Tensor): Promise<Float32Array> {
    return this.gpu.read(tensor);
  }

  [Symbol.dispose](): void {
    this.#owned.dispose();
  }
}

/** relu of random numbers: about half are 0. */
function randomActs(n: number, seed: number): Float32Array {
  return randomNormal(n, seed).map((value) => Math.max(value, 0));
}

function sumOf(n: number, term: (i: number) => number): number {
  let sum = 0;
  for (let i = 0; i < n; i++) sum += term(i);
  return sum;
}

Deno.test("unpack_batch widens bf16 rows and scales them when the count is odd", async () => {
  using bench = await Bench.open();
  const values = randomNormal(B * D, 1);
  const bits = f32ToBf16(values);
  using rows = bench.gpu.upload("rows", "bf16", [B, D], bits);
  const x = bench.poisoned("x", [B, D]);
  bench.record((rec) => unpackBatch.run(rec, { rows, x }, { scale: 0.25 }));
  const words = Uint32Array.from(bits, (bit) => bit << 16);
  const want = new Float32Array(words.buffer).map((value) => value / 4);
  deepEqual(await bench.read(x), want); // a power of 2: exact
});

Deno.test("row_norms matches float64, and is 0 for a row of zeros", async () => {
  using bench = await Bench.open();
  const values = randomNormal(F * 131, 2);
  values.fill(0, 131, 262);
  const W = bench.floats("W", [F, 131], values);
  const norms = bench.poisoned("norms", [F]);
  bench.record((rec) => rowNorms.run(rec, { W, norms }));
  // A tree sum of 131 squares and a root.
  assertClose(await bench.read(norms), reference.rowNorms(values, 131), {
    rtol: 1e-6,
    label: "norms",
  });
});

Deno.test("column_sums matches float64 when neither side is a multiple of the workgroup", async () => {
  using bench = await Bench.open();
  for (const [rows, columns] of [[B, D], [3, 200], [130, 65]] as const) {
    const values = randomNormal(rows * columns, 3);
    const y = bench.floats("y", [rows, columns], values);
    const sums = bench.poisoned("sums", [columns]);
    bench.record((rec) =>
      columnSums.run(rec, { y, sums }, { adds: 0, scale: 0.5 })
    );
    const want = Array.from(
      { length: columns },
      (_, j) => 0.5 * sumOf(rows, (b) => values[b * columns + j]!),
    );
    // Up to 130 terms of size 1, each rounded to 6e-8 of sums up to 30.
    assertClose(await bench.read(sums), want, { atol: 1e-5, label: "sums" });
    bench.record((rec) =>
      columnSums.run(rec, { y, sums }, { adds: 1, scale: 0.5 })
    );
    const twice = want.map((sum) => 2 * sum);
    assertClose(await bench.read(sums), twice, { atol: 2e-5, label: "added" });
  }
});

Deno.test("sum_squares leaves its parts in one column and touches no other row", async () => {
  using bench = await Bench.open();
  for (const n of [1, 63, 5000]) {
    const squares = randomNormal(n, 4);
    const nParts = squareParts(n);
    const values = bench.floats("values", [n], squares);
    const partials = bench.poisoned("partials", [nParts + 2, 4]);
    const options = { n_parts: nParts, slot: 1, column: 2 };
    bench.record((rec) => sumSquares.run(rec, { values, partials }, options));
    const rows = await bench.read(partials);
    const parts = rows.subarray(4, 4 + 4 * nParts);
    const ofColumn = (column: number) =>
      sumOf(nParts, (i) => parts[4 * i + column]!);
    const want = sumOf(n, (i) => squares[i]! ** 2);
    assertClose([ofColumn(2)], [want], { rtol: 1e-6, label: "Σ²" });
    deepEqual([0, 1, 3].map(ofColumn), [0, 0, 0]);
    deepEqual([rows[0], rows.at(-1)], [NaN, NaN]);
  }
});

Deno.test("sae_feature_sums matches float64, for a row of norm 0 and one that never fires too", async () => {
  using bench = await Bench.open();
  const width = 130;
  const values = randomActs(B * width, 5);
  for (let b = 0; b < B; b++) values[b * width + 7] = 0;
  const gradient = randomNormal(B * width, 6);
  const lengths = randomActs(width, 7).map((value) => value + 0.1);
  lengths[3] = 0;
  const tensors = {
    acts: bench.floats("acts", [B, width], values),
    dpre: bench.floats("dpre", [B, width], gradient),
    norms: bench.floats("norms", [width], lengths),
    db_enc: bench.poisoned("db_enc", [width]),
    l1_coef: bench.poisoned("l1_coef", [width]),
    touched: bench.ints(
      "touched",
      Array.from({ length: width }, (_, i) => i % 3),
    ),
    tokens_since_fired: bench.ints(
      "tokens_since_fired",
      Array.from({ length: width }, (_, i) => i === 7 ? 2 ** 32 - 3 : i),
    ),
  };
  // What is not touched may hold anything; what is touched is added to.
  const before = randomNormal(width, 8).map((value, i) =>
    i % 3 === 0 ? NaN : value
  );
  tensors.db_enc.write(before);
  bench.record((rec) => saeFeatureSums.run(rec, tensors, { l1: 0.3 }));
  const column = (rows: Float32Array, i: number) =>
    sumOf(B, (b) => rows[b * width + i]!);
  const features = [...Array(width).keys()];
  const fired = (i: number) => sumOf(B, (b) => +(values[b * width + i]! > 0));
  const close = { atol: 3e-6, label: "db_enc" }; // sums of 13
  const db_enc = features.map((i) =>
    column(gradient, i) + (i % 3 === 0 ? 0 : before[i]!)
  );
  assertClose(await bench.read(tensors.db_enc), db_enc, close);
  const coef = features.map((i) =>
    i === 3 ? 0 : 0.3 * column(values, i) / lengths[i]!
  );
  assertClose(await bench.read(tensors.l1_coef), coef, {
    rtol: 1e-6,
    label: "l1_coef",
  });
  const waited = await bench.gpu.readInts(tensors.tokens_since_fired);
  deepEqual(
    [...waited],
    features.map((i) => fired(i) > 0 ? 0 : i === 7 ? 2 ** 32 - 1 : i + B),
  );
  deepEqual(
    [...await bench.gpu.readInts(tensors.touched)],
    features.map((i) => Math.min(2, i % 3 + 1)),
  );
});

Deno.test("sae_step_status adds up, clips as PyTorch does, and keeps the first bad step", async () => {
  using bench = await Bench.open();
  const table = randomActs(4 * 101, 8);
  const status = bench.ints("status", Array<number>(12).fill(0));
  const aux = bench.floats("aux", [4], Float32Array.of(9, 0.25, 0, 0));
  const branch = bench.ints("branch", [1]);
  const dead = bench.ints("dead", [17]);
  const run = async (rows: Float32Array, step: number, max_norm: number) => {
    const partials = bench.floats("partials", [101, 4], rows);
    const values = { rows: B, step, lambda: 0.7, aux_weight: 0.5, max_norm };
    const tensors = { partials, aux, branch, dead, status };
    bench.record((rec) => saeStepStatus.run(rec, tensors, values));
    const words = await bench.gpu.readInts(status);
    return {
      floats: [...new Float32Array(words.buffer)].slice(0, 6),
      flags: [words[6], words[7]],
      rest: [words[9], words[10], words[11]],
    };
  };
  const total = (c: number) => sumOf(101, (i) => table[4 * i + c]!);
  const [mse, l1, L0] = [total(1) / B, total(2) / B, total(3) / B];
  const gradNorm = Math.sqrt(total(0));
  const want = [mse + 0.7 * l1 + 0.5 * 0.25, mse, l1, L0, gradNorm, 1];
  const large = await run(table, 4, 1e3);
  assertClose(large.floats, want, { rtol: 1e-6, label: "status" });
  want[5] = 0.5 / (gradNorm + 1e-6);
  const small = await run(table, 5, 0.5);
  assertClose(small.floats, want, { rtol: 1e-6, label: "clipped" });
  deepEqual(small.flags, [0, 0]);
  deepEqual(small.rest, [1, 17, 0]);
  const bad = await run(table.with(4 * 77, NaN), 6, 0.5);
  deepEqual(bad.flags, [7, 4]);
  const after = await run(table.with(4 * 77 + 1, Infinity), 7, 0.5);
  deepEqual(after.flags, bad.flags);
  deepEqual(after.floats, bad.floats);
});

for (const kernel of [adam, adamRows]) {
  Deno.test(`${kernel.name} matches float64 over four steps with a clip factor and rows without a gradient, and stands still after a bad step`, async () => {
    using bench = await Bench.open();
    const [rows, columns] = [11, 12];
    const n = rows * columns;
    const [first, start] = [randomNormal(n, 9), randomNormal(n, 10)];
    const W = bench.floats("W", [rows, columns], start);
    const m = bench.floats("m", [rows, columns], new Float32Array(n));
    const v = bench.floats("v", [rows, columns], new Float32Array(n));
    const [wantW, wantM, wantV] = [
      Float64Array.from(start),
      new Float64Array(n),
      new Float64Array(n),
    ];
    const bits = (value: number) =>
      new Uint32Array(Float32Array.of(value).buffer)[0]!;
    const step = (t: number, flag: number) => {
      const gradient = first.map((g, i) => g * Math.cos(t + i));
      gradient[5] = 0;
      const marks = Array.from({ length: rows }, (_, i) => (i + t) % 3);
      const isTouched = (i: number) => marks[Math.floor(i / columns)] !== 0;
      // What an untouched row holds must not matter.
      const noisy = gradient.map((g, i) => isTouched(i) ? g : NaN);
      const grad = bench.floats("grad", [rows, columns], noisy);
      const touched = bench.ints("touched", marks);
      const words = [0, 0, 0, 0, 0, bits(0.75), flag, 0, 0, 0, 0, 0];
      const status = bench.ints("status", words);
      bench.record((rec) =>
        kernel.run(rec, { grad, touched, status, m, v, W }, {
          beta1: 0.9,
          rest1: 1 - 0.9,
          beta2: 0.999,
          rest2: 1 - 0.999,
          step_size: 0.01 / (1 - 0.9 ** t),
          v_scale: 1 / Math.sqrt(1 - 0.999 ** t),
          eps: 1e-8,
        })
      );
      return gradient.map((g, i) => isTouched(i) ? g : 0);
    };
    for (let t = 1; t <= 4; t++) {
      const options = { clip: 0.75, lr: 0.01, t };
      reference.adamStep(wantW, wantM, wantV, step(t, 0), options);
    }
    step(5, 3);
    // A few roundings of W, of size 1, and of moments.
    assertClose(await bench.read(W), wantW, { atol: 1e-6, label: "W" });
    assertClose(await bench.read(m), wantM, { atol: 1e-7, label: "m" });
    assertClose(await bench.read(v), wantV, { rtol: 2e-6, label: "v" });
  });
}

Deno.test("sae_feature_stats adds to what earlier batches left", async () => {
  using bench = await Bench.open();
  const width = 70;
  const [first, second] = [
    randomActs(B * width, 11),
    randomActs(3 * width, 12),
  ];
  const n_fired = bench.ints("n_fired", Array<number>(width).fill(0));
  const max_act = bench.floats("max_act", [width], new Float32Array(width));
  for (const [values, T] of [[first, B], [second, 3]] as const) {
    const acts = bench.floats("acts", [T, width], values);
    bench.record((rec) => saeFeatureStats.run(rec, { acts, n_fired, max_act }));
  }
  const all = [...first, ...second];
  const column = (i: number) => all.filter((_, at) => at % width === i);
  const features = [...Array(width).keys()];
  deepEqual(
    [...await bench.gpu.readInts(n_fired)],
    features.map((i) => column(i).filter((act) => act > 0).length),
  );
  deepEqual(
    [...await bench.read(max_act)],
    features.map((i) => Math.max(...column(i))),
  );
});
