import { addNorm } from "../../kernels/add_norm.ts";
import { rmsNorm } from "../../kernels/rms_norm.ts";
import { siluMul } from "../../kernels/silu_mul.ts";
import { assertClose } from "../assert_close.ts";
import {
  rmsNormReference,
  siluMulReference,
} from "../reference/olmo2_reference.ts";
import { floats, poisoned, runKernel, seededTest } from "./run_kernel.ts";

const eps = 1e-6;
/** Odd sizes on both sides of the 64 lanes. */
const SIZES = [[1, 1], [3, 5], [7, 64], [2, 100], [3, 259]] as const;

/** A function of each row, joined. */
function eachRow(
  x: Float32Array,
  width: number,
  row: (x: Float32Array) => Float64Array,
): number[] {
  return Array.from({ length: x.length / width }, (_, t) => [
    ...row(x.subarray(t * width, (t + 1) * width)),
  ]).flat();
}

seededTest("rmsNorm() matches float64 when d_model is odd", async (draw) => {
  for (const [T, d_model] of SIZES) {
    for (const scale of [1e-3, 1, 300]) {
      const x = draw(T * d_model, scale);
      const weight = draw(d_model);
      const shape = [T, d_model];
      const { y } = await runKernel(rmsNorm, {
        x: floats(shape, x),
        weight: floats([d_model], weight),
        y: poisoned(shape),
      }, { eps });
      const want = eachRow(
        x,
        d_model,
        (row) => rmsNormReference(row, weight, eps),
      );
      // Each lane adds d_model/64 squares and 15 sums follow: (5 + 15) · 2⁻²⁴, halved by the root; then 4 roundings.
      assertClose(y!, want, { rtol: 1.2e-6, label: "y", shape });
    }
  }
});

seededTest("rmsNorm() is zero for a row of zeros", async (draw) => {
  const { y } = await runKernel(rmsNorm, {
    x: floats([2, 70], new Float32Array(140)),
    weight: floats([70], draw(70)),
    y: poisoned([2, 70]),
  }, { eps });
  assertClose(y!, new Float64Array(140), { label: "y", shape: [2, 70] });
});

seededTest("addNorm() adds the norm to what is there", async (draw) => {
  for (const [T, d_model] of SIZES) {
    const [x, resid] = [draw(T * d_model), draw(T * d_model, 10)];
    const weight = draw(d_model);
    const shape = [T, d_model];
    const got = await runKernel(addNorm, {
      x: floats(shape, x),
      weight: floats([d_model], weight),
      resid: floats(shape, resid),
    }, { eps });
    const want = eachRow(
      x,
      d_model,
      (row) => rmsNormReference(row, weight, eps),
    ).map((y, i) => resid[i]! + y);
    // Sums of |resid| + |y| up to 64, with rmsNorm's error in y: 64 · 2⁻²⁴ + 20 · 1.2e-6.
    assertClose(got.resid!, want, { atol: 3e-5, label: "resid", shape });
  }
});

seededTest(
  "siluMul() matches float64, also for gates of ±100",
  async (draw) => {
    for (const [T, d_ffn] of SIZES) {
      const gateUp = draw(2 * T * d_ffn, 3);
      gateUp[0] = 100;
      gateUp[(T - 1) * 2 * d_ffn] = -100;
      const { y } = await runKernel(siluMul, {
        gate_up: floats([T, 2 * d_ffn], gateUp),
        y: poisoned([T, d_ffn]),
      });
      const want = eachRow(gateUp, 2 * d_ffn, siluMulReference);
      // exp is good to 3 + 2|x| units in the last place, |x| ≤ 20; below 1e-30 it may be flushed to 0.
      assertClose(y!, want, {
        rtol: 4e-6,
        atol: 1e-30,
        label: "y",
        shape: [T, d_ffn],
      });
    }
  },
);
