import { equal, ok } from "node:assert/strict";
import type { SaeParams } from "../../train/init.ts";
import { SaeTrainer, type TrainerConfig } from "../../train/trainer.ts";
import { assertClose } from "../assert_close.ts";
import { testGpu } from "../gpu_for_tests.ts";

/** The dictionary of open-concept-steering's 65k SAE, through bindings as small as Mesa's software driver has. */
const SIZES = { batch: 3, d_model: 4096, d_sae: 65_536 };
const BINDING = 128 * 2 ** 20;
const LAMBDA = 2;
const LR = 1e-3;
/** Features whose weights are looked at; in several buffers, the first and the last among them. */
const SAMPLED = [0, 1, 8_191, 8_192, 40_000, 65_535];

/** Small numbers from a place: fast enough for half a billion of them. */
function valueAt(i: number, seed: number): number {
  let bits = Math.imul(i + 1, 0x9e3779b1) ^ seed;
  bits = Math.imul(bits ^ (bits >>> 15), 0x85ebca6b);
  return ((bits ^ (bits >>> 13)) | 0) / 2 ** 31;
}

function fill(
  n: number,
  seed: number,
  scale: number,
): Float32Array<ArrayBuffer> {
  const values = new Float32Array(n);
  for (let i = 0; i < n; i++) values[i] = scale * valueAt(i, seed);
  return values;
}

Deno.test("a step with 65,536 features of 4,096 agrees with float64 where it is sampled, through bindings of 128 MiB", async () => {
  const { batch, d_model, d_sae } = SIZES;
  using gpu = await testGpu({ maxBindingBytes: BINDING });
  const config: TrainerConfig = {
    ...SIZES,
    inputScale: 1,
    clipNorm: 1e9,
    betas: [0.9, 0.999],
    eps: 1e-8,
  };
  const params: SaeParams = {
    W_enc: fill(d_sae * d_model, 1, 0.03),
    // One feature in thirty fires.
    b_enc: fill(d_sae, 2, 0.1).map((value) => value - 1.6),
    W_dec: fill(d_sae * d_model, 3, 0.03),
    b_dec: fill(d_model, 4, 0.1),
  };
  const x = fill(batch * d_model, 5, 1);
  using trainer = new SaeTrainer(gpu, config, params);
  ok(gpu.peakBytes < 12e9, `${gpu.peakBytes} bytes`);
  trainer.step(x, { lambda: LAMBDA, lr: LR }, { metrics: true });
  await trainer.settle();
  const [metrics] = trainer.takeMetrics();
  equal(metrics!.path, "sparse");
  const want = reference(params, x);
  ok(want.nActive > 1000, `${want.nActive} active`);
  assertClose([metrics!.L0, metrics!.l1, metrics!.mse], [
    want.nActive / batch,
    want.l1,
    want.mse,
  ], { rtol: 1e-5, label: "L0, l1, mse" });
  const active = want.activeFeatures.slice(0, 4);
  for (const i of new Set([...SAMPLED, ...active])) {
    const got = await trainer.featureRows(i);
    const grads = want.gradientsOf(i);
    for (const name of ["W_enc", "W_dec"] as const) {
      const before = params[name].subarray(i * d_model, (i + 1) * d_model);
      // The first step of Adam: lr times g / (|g| + eps).
      const after = Float64Array.from(before, (value, j) => {
        const g = grads[name][j]!;
        return value - LR * g / (Math.abs(g) + 1e-8);
      });
      const noisy = grads[name].map((g) => Math.abs(g) < 1e-6 ? 2 * LR : 0);
      for (const [j, value] of after.entries()) {
        // Where the gradient is hardly above rounding, its sign may differ.
        const atol = 1e-6 + noisy[j]! * Number(grads[name][j] !== 0);
        assertClose([got[name][j]!], [value], {
          atol,
          label: `${name}[${i}, ${j}]`,
        });
      }
    }
  }
});

/** What of the step is compared, in float64; gradients only of features that are asked for. */
function reference(params: SaeParams, x: Float32Array) {
  const { batch, d_model, d_sae } = SIZES;
  const active: { b: number; i: number; act: number }[] = [];
  const err = Float64Array.from(
    x,
    (value, at) => params.b_dec[at % d_model]! - value,
  );
  let l1 = 0;
  for (let i = 0; i < d_sae; i++) {
    const row = i * d_model;
    for (let b = 0; b < batch; b++) {
      let pre = params.b_enc[i]!;
      for (let j = 0; j < d_model; j++) {
        pre += x[b * d_model + j]! * params.W_enc[row + j]!;
      }
      if (pre <= 0) continue;
      active.push({ b, i, act: pre });
      for (let j = 0; j < d_model; j++) {
        err[b * d_model + j]! += pre * params.W_dec[row + j]!;
      }
      l1 += pre * normOf(params.W_dec, row) / batch;
    }
  }
  const gradientsOf = (i: number) => {
    const row = i * d_model;
    const norm = normOf(params.W_dec, row);
    const grads = {
      W_enc: new Float64Array(d_model),
      W_dec: new Float64Array(d_model),
    };
    for (const { b, act } of active.filter((entry) => entry.i === i)) {
      let dact = LAMBDA / batch * norm;
      for (let j = 0; j < d_model; j++) {
        const e = 2 / batch * err[b * d_model + j]!;
        const w = params.W_dec[row + j]!;
        dact += e * w;
        grads.W_dec[j]! += act * e + LAMBDA / batch * act * w / norm;
      }
      for (let j = 0; j < d_model; j++) {
        grads.W_enc[j]! += dact * x[b * d_model + j]!;
      }
    }
    return grads;
  };
  return {
    nActive: active.length,
    activeFeatures: [...new Set(active.map(({ i }) => i))],
    l1,
    mse: err.reduce((sum, value) => sum + value * value, 0) / batch,
    gradientsOf,
  };
}

function normOf(W: Float32Array, row: number): number {
  let squares = 0;
  for (let j = 0; j < SIZES.d_model; j++) squares += W[row + j]! ** 2;
  return Math.sqrt(squares);
}
