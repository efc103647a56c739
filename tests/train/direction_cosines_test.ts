import assert from "node:assert/strict";
import { Rng } from "../../core/rng.ts";
import { maxCosines } from "../../train/direction_cosines.ts";
import { assertClose } from "../assert_close.ts";
import { testGpu } from "../gpu_for_tests.ts";

Deno.test("maxCosines() matches float64, leaves a direction itself out, and takes those of norm 0 for 0", async () => {
  // Rows of 5 do not fill tiles; 40 rows of results fit into a binding.
  const [d_model, d_sae] = [5, 131];
  using gpu = await testGpu({ maxBindingBytes: 40 * 4 * d_sae });
  const rng = new Rng(3);
  const W = Float32Array.from({ length: d_sae * d_model }, () => rng.normal());
  W.fill(0, 7 * d_model, 8 * d_model);
  const row = (i: number) => W.subarray(i * d_model, (i + 1) * d_model);
  const dot = (a: Float32Array, b: Float32Array) =>
    a.reduce((sum, value, j) => sum + value * b[j]!, 0);
  const cosine = (i: number, k: number) =>
    i === 7 || k === 7 ? 0 : dot(row(i), row(k)) /
      Math.sqrt(dot(row(i), row(i)) * dot(row(k), row(k)));
  const want = Array.from({ length: d_sae }, (_, i) => {
    const others = [...Array(d_sae).keys()].filter((k) => k !== i);
    return Math.max(...others.map((k) => cosine(i, k)));
  });
  const done: number[] = [];
  const got = await maxCosines(gpu, {
    d_model,
    d_sae,
    rows: (start, end) =>
      Promise.resolve(W.slice(start * d_model, end * d_model)),
  }, (n) => done.push(n));
  // Products of unit vectors of 5 values.
  assertClose(got, want, { atol: 1e-6, label: "cosines" });
  assert.deepEqual(done, [40, 80, 120, 131]);
  const alone = await maxCosines(gpu, {
    d_model,
    d_sae: 1,
    rows: () => Promise.resolve(W.slice(0, d_model)),
  });
  assert.deepEqual([...alone], [-Infinity]);
});
