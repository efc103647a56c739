import { deepEqual, equal, ok } from "node:assert/strict";
import { assertClose, randomNormal } from "../assert_close.ts";
import {
  type ArchitectureArrays,
  type ArchitectureOptions,
  architecturePass,
  kthLargest,
  nextInferenceThreshold,
} from "./sae_architectures.ts";
import { forwardBackward } from "./sae_reference.ts";

const SIZES = { B: 4, d_model: 5, d_sae: 9 };
const { B, d_model, d_sae } = SIZES;
const PARAMETERS = ["W_enc", "b_enc", "W_dec", "b_dec"] as const;

function randomParams(seed: number): ArchitectureArrays {
  const draw = (n: number, offset: number, scale: number) =>
    Float64Array.from(randomNormal(n, seed + offset, scale));
  return {
    W_enc: draw(d_sae * d_model, 0, 0.5),
    b_enc: draw(d_sae, 1, 0.3),
    W_dec: draw(d_sae * d_model, 2, 0.5),
    b_dec: draw(d_model, 3, 1),
  };
}

const x = randomNormal(B * d_model, 77);
const dead = Uint8Array.from({ length: d_sae }, (_, i) => i % 2);
const aux = { dead, auxK: 2, coefficient: 0.3 };
const withThresholds = (p: ArchitectureArrays): ArchitectureArrays => ({
  ...p,
  log_threshold: Float64Array.from(randomNormal(d_sae, 5, 0.5)),
});

/** Central differences of `lossOf`, in float64: errors of h² and 1e-16/h, both far below the tolerance. */
function compare(
  name: string,
  values: Float64Array,
  grad: Float64Array,
  lossOf: (moved: Float64Array) => number,
): void {
  const h = 1e-6;
  const numeric = values.map((value, i) =>
    (lossOf(values.with(i, value + h)) - lossOf(values.with(i, value - h))) /
    (2 * h)
  );
  ok(numeric.some((slope) => Math.abs(slope) > 1e-3), `${name} has no slope`);
  assertClose(grad, numeric, { atol: 1e-7, rtol: 1e-6, label: name });
}

/** Compares all gradients but that of the thresholds, with what is held constant held. */
function compareAtFixedSelection(
  params: ArchitectureArrays,
  options: ArchitectureOptions,
): void {
  const pass = architecturePass(params, x, options);
  const fixed = {
    kept: pass.kept,
    residual: pass.residual,
    ...(pass.aux && {
      auxKept: pass.aux.kept,
      residualVariance: pass.aux.residualVariance,
    }),
  };
  for (const name of PARAMETERS) {
    compare(
      `${options.architecture} ${name}`,
      params[name],
      pass.grads[name],
      (moved) =>
        architecturePass({ ...params, [name]: moved }, x, {
          ...options,
          fixed,
        }).loss,
    );
  }
}

Deno.test("architecturePass() of relu is forwardBackward()", () => {
  const params = randomParams(1);
  const want = forwardBackward(params, x, 0.7, SIZES);
  const got = architecturePass(params, x, {
    sizes: SIZES,
    architecture: "relu",
    lambda: 0.7,
  });
  assertClose([got.loss, got.mse, got.sparsity, got.L0, got.gradNorm], [
    want.loss,
    want.mse,
    want.l1,
    want.L0,
    want.gradNorm,
  ], { rtol: 1e-13, label: "numbers" });
  assertClose(got.acts, want.acts, { atol: 1e-14, label: "acts" });
  for (const name of PARAMETERS) {
    const label = name;
    assertClose(got.grads[name], want.grads[name], { atol: 1e-13, label });
  }
});

for (const withAux of [undefined, aux]) {
  const suffix = withAux ? " with AuxK" : "";
  const options = { sizes: SIZES, ...(withAux && { aux: withAux }) };
  Deno.test(`architecturePass() agrees with finite differences${suffix}: relu`, () =>
    compareAtFixedSelection(randomParams(11), {
      ...options,
      architecture: "relu",
      lambda: 0.7,
    }));
  for (const architecture of ["topk", "batchtopk"] as const) {
    Deno.test(`architecturePass() agrees with finite differences${suffix}: ${architecture}`, () =>
      compareAtFixedSelection(randomParams(12), {
        ...options,
        architecture,
        k: 2,
      }));
  }
  Deno.test(`architecturePass() agrees with finite differences${suffix}: jumprelu at a fixed mask`, () =>
    compareAtFixedSelection(withThresholds(randomParams(13)), {
      ...options,
      architecture: "jumprelu",
      lambda: 0.7,
      bandwidth: 0.5,
    }));
}

// The estimators of jumprelu are exact derivatives of a loss in which the step is a ramp of width ε around θ,
//   H̃(θ) = clamp((pre − θ)/ε + ½, 0, 1)   and   ã(θ) = ∫ from θ of (τ/ε)·K((pre − τ)/ε) dτ,
// which is pre below the ramp, 0 above it, and ((pre + ε/2)² − θ²)/2ε on it. The decoder still sees the hard
// activations, so ã enters as its change from the thresholds at hand.
Deno.test("architecturePass() gives log_threshold the slope of the smoothed loss", () => {
  const params = withThresholds(randomParams(13));
  const [bandwidth, lambda] = [0.9, 0.7];
  const pass = architecturePass(params, x, {
    sizes: SIZES,
    architecture: "jumprelu",
    lambda,
    bandwidth,
  });
  const step = (pre: number, theta: number) =>
    Math.min(Math.max((pre - theta) / bandwidth + 0.5, 0), 1);
  const ramp = (pre: number, theta: number) => {
    const [low, high] = [pre - bandwidth / 2, pre + bandwidth / 2];
    if (theta >= high) return 0;
    return (high ** 2 - Math.max(theta, low) ** 2) / (2 * bandwidth);
  };
  const smoothed = (logThreshold: Float64Array): number => {
    let loss = 0;
    for (let b = 0; b < B; b++) {
      const xHat = Float64Array.from(params.b_dec);
      for (let i = 0; i < d_sae; i++) {
        const pre = pass.pre[b * d_sae + i]!;
        const theta = Math.exp(logThreshold[i]!);
        const act = pass.acts[b * d_sae + i]! + ramp(pre, theta) -
          ramp(pre, Math.exp(params.log_threshold![i]!));
        for (let j = 0; j < d_model; j++) {
          xHat[j]! += act * params.W_dec[i * d_model + j]!;
        }
        loss += lambda * step(pre, theta) / B;
      }
      for (let j = 0; j < d_model; j++) {
        loss += (xHat[j]! - x[b * d_model + j]!) ** 2 / B;
      }
    }
    return loss;
  };
  compare(
    "log_threshold",
    params.log_threshold!,
    pass.grads.log_threshold!,
    smoothed,
  );
});

Deno.test("architecturePass() keeps the k largest of a row or batch, all ties, and nothing at or below 0", () => {
  // One dimension, so that pre of feature i is x·w_i.
  const params = {
    W_enc: Float64Array.of(3, 2, 2, 1, -1),
    b_enc: new Float64Array(5),
    W_dec: new Float64Array(5).fill(1),
    b_dec: new Float64Array(1),
  };
  const sizes = { B: 3, d_model: 1, d_sae: 5 };
  const input = [1, 2, -1];
  const pass = (architecture: "topk" | "batchtopk", k: number) =>
    architecturePass(params, input, { sizes, architecture, k });
  const topk = pass("topk", 2);
  deepEqual([...topk.acts], [3, 2, 2, 0, 0, 6, 4, 4, 0, 0, 0, 0, 0, 0, 1]);
  equal(topk.L0, 7 / 3);
  equal(topk.smallestKept, 1);
  const batch = pass("batchtopk", 1);
  deepEqual([...batch.acts], [0, 0, 0, 0, 0, 6, 4, 4, 0, 0, 0, 0, 0, 0, 0]);
  equal(batch.smallestKept, 4);
  equal(kthLargest([0, -3], 1), 0);
});

Deno.test("architecturePass() trains AuxK on dead features alone, and none without them or without variance", () => {
  const params = randomParams(14);
  const options = { sizes: SIZES, architecture: "topk", k: 2 } as const;
  const plain = architecturePass(params, x, options);
  const pass = architecturePass(params, x, { ...options, aux });
  for (const [at, kept] of pass.aux!.kept.entries()) {
    ok(!kept || dead[at % d_sae], `feature ${at % d_sae} is alive`);
  }
  deepEqual(pass.grads.b_dec, plain.grads.b_dec);
  for (let i = 0; i < d_sae; i += 2) {
    equal(pass.grads.b_enc[i], plain.grads.b_enc[i]);
  }
  const none = { ...aux, dead: new Uint8Array(d_sae) };
  const without = architecturePass(params, x, { ...options, aux: none });
  equal(without.aux!.loss, 0);
  deepEqual(without.grads, plain.grads);
  const one = architecturePass(params, x.subarray(0, d_model), {
    ...options,
    sizes: { ...SIZES, B: 1 },
    aux,
  });
  equal(one.aux!.loss, 0);
});

Deno.test("nextInferenceThreshold() starts at the first value and skips steps that keep nothing", () => {
  equal(nextInferenceThreshold(undefined, undefined), undefined);
  equal(nextInferenceThreshold(undefined, 2), 2);
  equal(nextInferenceThreshold(2, undefined), 2);
  assertClose([nextInferenceThreshold(2, 3)!], [2.01], {
    rtol: 1e-12,
    label: "threshold",
  });
});
