import { equal, ok } from "node:assert/strict";
import { bf16ToF32, f32ToBf16 } from "../../core/dtype.ts";
import { Sae } from "../../core/sae.ts";
import { evaluateResiduals } from "../../train/evaluate.ts";
import { assertClose, randomNormal } from "../assert_close.ts";
import {
  ARCHITECTURES,
  randomWeights,
  rowsOfWeights,
  withArchitecture,
} from "../core/sae_for_tests.ts";
import { testGpu } from "../gpu_for_tests.ts";
import { architecturePass } from "../reference/sae_architectures.ts";

const [D, D_SAE, N] = [16, 70, 37];

for (const architecture of ARCHITECTURES) {
  Deno.test(`evaluateResiduals() measures ${architecture} as float64 does`, async () => {
    const { weights, k = 0 } = withArchitecture(
      architecture,
      randomWeights(8, D, D_SAE),
    );
    const packed = f32ToBf16(randomNormal(N * D, 4));
    const x = bf16ToF32(packed);
    const gpu = await testGpu();
    using sae = await Sae.load(
      gpu,
      rowsOfWeights(weights, { architecture, k }),
    );
    const runs = ReadableStream.from([
      packed.slice(0, 5 * D),
      packed.slice(5 * D),
    ]);
    const got = await evaluateResiduals(gpu, sae, runs);

    const wide = (values: Float32Array) => Float64Array.from(values);
    const { threshold } = weights;
    const want = architecturePass(
      {
        W_enc: wide(weights.W_enc),
        b_enc: wide(weights.b_enc),
        W_dec: wide(weights.W_dec),
        b_dec: wide(weights.b_dec),
        ...(threshold && { log_threshold: wide(threshold).map(Math.log) }),
      },
      x,
      { sizes: { B: N, d_model: D, d_sae: D_SAE }, architecture, k },
    );
    ok(want.L0 > 1 && want.L0 < D_SAE / 1.5, `${want.L0} fire`);
    if (architecture === "topk") equal(got.L0, k);
    assertClose([got.L0, got.mse], [want.L0, want.mse], {
      rtol: 1e-5,
      label: "L0 and mse",
    });
    const featureMax = Float64Array.from(
      { length: D_SAE },
      (_, i) =>
        want.acts.reduce(
          (most, act, at) => at % D_SAE === i ? Math.max(most, act) : most,
          0,
        ),
    );
    assertClose(got.featureMax, featureMax, { atol: 1e-5, label: "maximum" });
  });
}
