import { deepEqual } from "node:assert/strict";
import { f32ToBf16 } from "../../core/dtype.ts";
import { packBf16 } from "../../kernels/pack_bf16.ts";
import { testGpu } from "../gpu_for_tests.ts";
import { seededTest } from "./run_kernel.ts";

async function pack(
  values: Float32Array<ArrayBuffer>,
  d_model: number,
): Promise<number[]> {
  const gpu = await testGpu();
  const shape = [values.length / d_model, d_model];
  using x = gpu.floats("x", shape, values);
  const poison = new Uint16Array(values.length).fill(0x7fc0);
  using packed = gpu.upload("packed", "bf16", shape, poison);
  gpu.record("pack", (rec) => packBf16.run(rec, { x, packed }));
  const bytes = await gpu.readBytes(packed);
  return [...new Uint16Array(bytes.buffer, 0, values.length)];
}

seededTest("packBf16() rounds as the host does, on odd sizes", async (draw) => {
  for (const [T, d_model] of [[1, 1], [3, 5], [7, 23], [5, 192]] as const) {
    const values = draw(T * d_model, 30);
    deepEqual(await pack(values, d_model), [...f32ToBf16(values)]);
  }
});

Deno.test("packBf16() rounds ties to even, overflows to infinity and keeps NaN", async () => {
  const bits = Uint32Array.of(
    0x3f808000, // a tie below an even value
    0x3f818000, // a tie below an odd value
    0x3f808001, // just above a tie
    0x7f7fffff, // the largest number, beyond bf16's
    0xff800000, // minus infinity
    0x7f800001, // NaN with its payload in the lower half
    0xffffffff, // NaN that rounding would turn into 0
    0x80000000, // minus zero
  );
  deepEqual(await pack(new Float32Array(bits.buffer), 4), [
    0x3f80,
    0x3f82,
    0x3f81,
    0x7f80,
    0xff80,
    0x7fc0,
    0xffff,
    0x8000,
  ]);
});
