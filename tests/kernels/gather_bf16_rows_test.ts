import { deepEqual, equal, throws } from "node:assert/strict";
import { bf16ToF32, f32ToBf16 } from "../../core/dtype.ts";
import { gatherBf16Rows } from "../../kernels/gather_bf16_rows.ts";
import { poison } from "../assert_close.ts";
import { testGpu } from "../gpu_for_tests.ts";
import { seededTest } from "./run_kernel.ts";

seededTest(
  "gatherBf16Rows() picks rows exactly, in any order, also twice",
  async (draw) => {
    const gpu = await testGpu();
    for (const d_model of [2, 38, 130]) {
      const packed = f32ToBf16(draw(9 * d_model));
      const picked = [8, 0, 3, 3, 7, 8, 1];
      using rows = gpu.upload("rows", "bf16", [9, d_model], packed);
      using index = gpu.upload("index", "u32", [7], Uint32Array.from(picked));
      using x = gpu.floats("x", [7, d_model], poison(7 * d_model));
      gpu.record("gather", (rec) => {
        gatherBf16Rows(rec, { rows, index, x }, { scale: 0.3 });
      });
      const scale = Math.fround(0.3);
      const want = picked.flatMap((row) => [
        ...bf16ToF32(packed.subarray(row * d_model, (row + 1) * d_model))
          .map((value) => value * scale),
      ]);
      // One product, which every device rounds to the nearest.
      deepEqual([...await gpu.read(x)], want);
    }
  },
);

seededTest(
  "gatherBf16Rows() picks from several windows, and leaves rows past the end alone",
  async (draw) => {
    const d_model = 12;
    using gpu = await testGpu({ maxBindingBytes: 64 * d_model * 2 });
    const packed = f32ToBf16(draw(131 * d_model));
    const before = draw(5 * d_model);
    const picked = [130, 64, 131, 63, 0];
    using rows = gpu.upload("rows", "bf16", [131, d_model], packed);
    equal(rows.isBindable, false);
    using index = gpu.upload("index", "u32", [5], Uint32Array.from(picked));
    using x = gpu.floats("x", [5, d_model], before);
    gpu.record("gather", (rec) => {
      gatherBf16Rows(rec, { rows, index, x }, { scale: 1 });
    });
    const want = picked.flatMap((row, b) =>
      row < 131
        ? [...bf16ToF32(packed.subarray(row * d_model, (row + 1) * d_model))]
        : [...before.subarray(b * d_model, (b + 1) * d_model)]
    );
    deepEqual([...await gpu.read(x)], want);
  },
);

Deno.test("gatherBf16Rows() refuses rows that start within a word", async () => {
  const gpu = await testGpu();
  using rows = gpu.tensor("rows", "bf16", [4, 3]);
  using index = gpu.tensor("index", "u32", [1]);
  using x = gpu.tensor("x", "f32", [1, 3]);
  throws(
    () =>
      gpu.record("gather", (rec) => {
        gatherBf16Rows(rec, { rows, index, x }, { scale: 1 });
      }),
    /^RangeError: Cannot gather rows of rows: bf16\[4, 3\]: expected an even number of bf16 values in each$/,
  );
});
