import assert from "node:assert/strict";
import { Sae } from "../../core/sae.ts";
import { SaeEncoder } from "../../core/sae_encoder.ts";
import type { SaeArchitecture, SaeWeights } from "../../core/sae_file.ts";
import type { Gpu } from "../../gpu/mod.ts";
import { assertClose, randomNormal } from "../assert_close.ts";
import { testGpu } from "../gpu_for_tests.ts";
import { architecturePass } from "../reference/sae_architectures.ts";
import { rejectsInOneLine } from "../rejects_in_one_line.ts";
import {
  ARCHITECTURES,
  randomWeights,
  rowsOfWeights,
  withArchitecture,
} from "./sae_for_tests.ts";

const D_MODEL = 23;
const T = 5;

/** The same activations in float64, `[T, d_sae]`. */
function reference(
  architecture: SaeArchitecture,
  weights: SaeWeights,
  x: Float32Array,
  k: number,
): Float64Array {
  const { d_model, d_sae, threshold } = weights;
  const wide = (values: Float32Array) => Float64Array.from(values);
  const params = {
    W_enc: wide(weights.W_enc),
    b_enc: wide(weights.b_enc),
    W_dec: wide(weights.W_dec),
    b_dec: wide(weights.b_dec),
    ...(threshold && { log_threshold: wide(threshold).map(Math.log) }),
  };
  const sizes = { B: x.length / d_model, d_model, d_sae };
  return architecturePass(params, x, { sizes, architecture, k }).acts;
}

/** Activations of the encoder, `[T, d_sae]`, and how many windows they came in. */
async function encoded(
  gpu: Gpu,
  sae: Sae,
  x: Float32Array<ArrayBuffer>,
  maxTokens: number,
): Promise<{ acts: Float32Array; nWindows: number }> {
  const T = x.length / sae.d_model;
  using encoder = new SaeEncoder(sae, maxTokens);
  using owned = new DisposableStack();
  const rows = owned.use(gpu.floats("x", [T, sae.d_model], x));
  const copies = encoder.windows.map(({ start, end }) =>
    owned.use(gpu.tensor("copy", "f32", [T, end - start]))
  );
  gpu.record("encode", (rec) => {
    encoder.encode(rec, rows, (acts, window) => {
      rec.copy(acts, copies[encoder.windows.indexOf(window)]!);
    });
  });
  const acts = new Float32Array(T * sae.d_sae);
  for (const [w, { start, end }] of encoder.windows.entries()) {
    const part = await gpu.read(copies[w]!);
    const size = end - start;
    for (let t = 0; t < T; t++) {
      const row = part.subarray(t * size, (t + 1) * size);
      acts.set(row, t * sae.d_sae + start);
    }
  }
  return { acts, nWindows: copies.length };
}

for (const architecture of ARCHITECTURES) {
  Deno.test(`SaeEncoder matches float64 for ${architecture}, in one window and in several`, async () => {
    const plain = randomWeights(3, D_MODEL, 201);
    const { weights, k = 0 } = withArchitecture(architecture, plain);
    const x = randomNormal(T * D_MODEL, 5);
    const want = reference(architecture, weights, x, k);
    const fired = want.filter((act) => act > 0).length;
    assert.ok(fired >= 20 && fired < want.length / 1.5, `${fired} fire`);
    if (architecture === "topk") assert.equal(fired, T * k);
    // 64 rows of 23 floats are 5.9 kB: blocks of 64 features.
    using small = await testGpu({ maxBindingBytes: 8_000 });
    for (const gpu of [await testGpu(), small]) {
      using sae = await Sae.load(
        gpu,
        rowsOfWeights(weights, { architecture, k }),
      );
      // More tokens than are given, as at the end of the data.
      const { acts, nWindows } = await encoded(gpu, sae, x, T + 2);
      assert.equal(nWindows > 1, gpu === small);
      // Sums of 23 products of size 1: 23 · 5 · 2⁻²⁴.
      const shape = [T, 201];
      assertClose(acts, want, { atol: 1e-5, label: "acts", shape });
    }
  });

  Deno.test(`SaeEncoder leaves what is not finite in sight for ${architecture}`, async () => {
    const gpu = await testGpu();
    const plain = randomWeights(3, D_MODEL, 70);
    const { weights, k = 0 } = withArchitecture(architecture, plain);
    using sae = await Sae.load(
      gpu,
      rowsOfWeights(weights, { architecture, k }),
    );
    for (const bad of [NaN, Infinity, -Infinity]) {
      const x = randomNormal(2 * D_MODEL, 5);
      x[D_MODEL + 3] = bad;
      const { acts } = await encoded(gpu, sae, x, 2);
      assert.ok(acts.subarray(0, 70).every(Number.isFinite));
      assert.ok(!acts.subarray(70).every(Number.isFinite), `${bad} is lost`);
    }
  });
}

Deno.test("Sae.load() refuses topk without k and jumprelu without thresholds", async () => {
  const gpu = await testGpu();
  const weights = randomWeights(3, 5, 7);
  await rejectsInOneLine(
    () => Sae.load(gpu, rowsOfWeights(weights, { architecture: "topk" })),
    /^TypeError: .*k from 1: got undefined$/,
  );
  await rejectsInOneLine(
    () => Sae.load(gpu, rowsOfWeights(weights, { architecture: "jumprelu" })),
    /^TypeError: .*expected thresholds: got none$/,
  );
});
