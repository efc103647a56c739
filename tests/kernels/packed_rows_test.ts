import { deepEqual, equal } from "node:assert/strict";
import { bf16ToF32, f32ToBf16 } from "../../core/dtype.ts";
import { gatherWords } from "../../kernels/gather_words.ts";
import { packedRowNorms } from "../../kernels/packed_row_norms.ts";
import { packRows } from "../../kernels/pack_rows.ts";
import { unpackRows } from "../../kernels/unpack_rows.ts";
import { assertClose } from "../assert_close.ts";
import { testGpu } from "../gpu_for_tests.ts";
import { poisoned, runKernel, seededTest, words } from "./run_kernel.ts";

/** Rows of bf16 in whole words, as the kernels lay them out. */
function packed(values: Float32Array, d_model: number): number[] {
  const bits = f32ToBf16(values);
  const all: number[] = [];
  for (let at = 0; at < bits.length; at += d_model) {
    for (let j = 0; j < d_model; j += 2) {
      const high = j + 1 < d_model ? bits[at + j + 1]! : 0;
      all.push((bits[at + j]! | high << 16) >>> 0);
    }
  }
  return all;
}

function bitsOf(values: Float32Array): number[] {
  return [...new Uint32Array(values.slice().buffer)];
}

seededTest(
  "packRows() picks rows and rounds as the host does, on odd sizes",
  async (draw) => {
    for (const [T, d_model] of [[1, 1], [5, 3], [7, 192], [3, 65]] as const) {
      const values = draw(T * d_model, 30);
      const rows = [T - 1, 0, ...Array(T).keys()];
      const n = rows.length;
      const width = Math.ceil(d_model / 2);
      const gpu = await testGpu();
      using x = gpu.floats("x", [T, d_model], values);
      using index = gpu.upload("rows", "u32", [n], Uint32Array.from(rows));
      using out = gpu.upload(
        "packed",
        "u32",
        [n, width],
        new Uint32Array(n * width).fill(0x7fc0_7fc0),
      );
      gpu.record("pack", (rec) => {
        packRows.run(rec, { x, rows: index, packed: out });
      });
      const picked = Float32Array.from(
        rows.flatMap((row) => [
          ...values.subarray(row * d_model, (row + 1) * d_model),
        ]),
      );
      deepEqual([...await gpu.readInts(out)], packed(picked, d_model));
    }
  },
);

seededTest(
  "unpackRows() undoes packRows() and scales, on odd sizes",
  async (draw) => {
    for (const [n, d_model] of [[1, 1], [5, 3], [7, 192], [3, 65]] as const) {
      const values = bf16ToF32(f32ToBf16(draw(n * d_model, 30)));
      const scale = Math.fround(0.37);
      const { x } = await runKernel(unpackRows, {
        packed: words([n, Math.ceil(d_model / 2)], packed(values, d_model)),
        x: poisoned([n, d_model]),
      }, { scale });
      deepEqual(bitsOf(x!), bitsOf(values.map((value) => scale * value)));
    }
  },
);

seededTest(
  "packedRowNorms() matches float64, and marks rows that are not finite",
  async (draw) => {
    for (const [n, d_model] of [[1, 1], [5, 3], [9, 192], [4, 333]] as const) {
      const values = bf16ToF32(f32ToBf16(draw(n * d_model, 30)));
      const want = Array.from(
        { length: n },
        (_, i) =>
          Math.hypot(...values.subarray(i * d_model, (i + 1) * d_model)),
      );
      if (n > 3) {
        for (const [row, bad] of [NaN, Infinity, -Infinity].entries()) {
          // In the last, which is the lower half of its word where d_model is odd, and in the first.
          values[row * d_model + (row === 0 ? d_model - 1 : 0)] = bad;
          want[row] = -1;
        }
      }
      const { norms } = await runKernel(packedRowNorms, {
        packed: words([n, Math.ceil(d_model / 2)], packed(values, d_model)),
        norms: poisoned([n]),
      });
      // Up to 6 additions a lane and 16 of lanes, each off by 2⁻²⁴ at most.
      assertClose(norms!, want, { rtol: 3e-6, label: "norms" });
    }
  },
);

Deno.test("gatherWords() picks the rows of its window and leaves the others alone", async () => {
  const gpu = await testGpu();
  const [nRows, width, first] = [5, 3, 64];
  const source = Uint32Array.from({ length: nRows * width }, (_, i) => i);
  using window = gpu.upload("window", "u32", [nRows, width], source);
  const index = [68, 63, 64, 69, 4_000_000_000, 66, 64];
  using rows = gpu.upload(
    "rows",
    "u32",
    [index.length],
    Uint32Array.from(index),
  );
  const before = new Uint32Array(index.length * width).fill(99);
  using picked = gpu.upload("picked", "u32", [index.length, width], before);
  gpu.record("gather", (rec) => {
    gatherWords.run(rec, { source: window, rows, picked }, { first });
  });
  const got = await gpu.readInts(picked);
  equal(got.length, index.length * width);
  const want = index.flatMap((row) =>
    row >= first && row < first + nRows
      ? [0, 1, 2].map((j) => (row - first) * width + j)
      : [99, 99, 99]
  );
  deepEqual([...got], want);
});

Deno.test("packRows() keeps NaN and overflows to infinity", async () => {
  const gpu = await testGpu();
  const bits = Uint32Array.of(0x7f80_0001, 0x7f7f_ffff, 0xff80_0000);
  using x = gpu.floats("x", [1, 3], new Float32Array(bits.buffer));
  using rows = gpu.upload("rows", "u32", [1], new Uint32Array(1));
  using out = gpu.tensor("packed", "u32", [1, 2]);
  gpu.record("pack", (rec) => packRows.run(rec, { x, rows, packed: out }));
  deepEqual([...await gpu.readInts(out)], [0x7f80_7fc0, 0xff80]);
});
