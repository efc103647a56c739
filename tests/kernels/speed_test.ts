import { deepEqual, equal } from "node:assert/strict";
import { copySpeed } from "../../kernels/copy_speed.ts";
import { fmaSpeed } from "../../kernels/fma_speed.ts";
import { readSpeed } from "../../kernels/read_speed.ts";
import { assertClose } from "../assert_close.ts";
import { testGpu } from "../gpu_for_tests.ts";
import { floats, poisoned, runKernel, seededTest } from "./run_kernel.ts";

for (const LANES of [8, 64]) {
  seededTest(
    `read_speed reads every word once, ${LANES} lanes`,
    async (draw) => {
      const gpu = await testGpu();
      const [rows, columns] = [24, 200];
      const words = new Uint32Array(draw(rows * columns / 2).buffer);
      using x = gpu.upload("x", "bf16", [rows, columns], words);
      using sums = gpu.tensor("sums", "u32", [rows / 8, LANES]);
      gpu.record("read", (rec) => readSpeed.run(rec, { x, sums }, { LANES }));
      const got = await gpu.readInts(sums);
      const perGroup = 8 * columns / 2;
      for (let group = 0; group < rows / 8; group++) {
        const sum = (values: Uint32Array): number =>
          values.reduce((total, word) => (total + word) >>> 0, 0);
        equal(
          sum(got.subarray(group * LANES, (group + 1) * LANES)),
          sum(words.subarray(group * perGroup, (group + 1) * perGroup)),
          `rows of workgroup ${group}`,
        );
      }
    },
  );
}

seededTest("copy_speed copies every number", async (draw) => {
  const x = draw(3 * 1024);
  const { y } = await runKernel(copySpeed, {
    x: floats([3, 1024], x),
    y: poisoned([3, 1024]),
  });
  deepEqual(y, x);
});

Deno.test("fma_speed computes 4 rounds of 16 vectors, as float64 does", async () => {
  const n = 128;
  const { y } = await runKernel(fmaSpeed, { y: poisoned([n]) }, { rounds: 4 });
  const want = Float64Array.from({ length: n }, (_, i) => {
    let total = 0;
    for (const factor of [0.1, 0.2, 0.3, 0.4]) {
      const x = (i % 7) * factor;
      for (const start of [0, 1, 2, 3]) {
        let value = x + start;
        for (let step = 0; step < 16; step++) value = 0.99 * value + x;
        total += value;
      }
    }
    return total;
  });
  assertClose(y!, want, { rtol: 1e-5, atol: 1e-4, label: "y" });
});
