import { deepEqual, equal, ok, rejects, throws } from "node:assert/strict";
import { bf16ToF32, f32ToBf16 } from "../../core/dtype.ts";
import { directory } from "../../core/files.ts";
import { Safetensors, safetensorsChunks } from "../../core/safetensors.ts";
import { memoryFolder, memorySource } from "../../core/source.ts";
import type { Gpu } from "../../gpu/mod.ts";
import { initSae } from "../../train/init.ts";
import { replayTraining } from "../../train/replay.ts";
import {
  SaeTrainer,
  type TrainerConfig,
  trainingBytes,
} from "../../train/trainer.ts";
import { assertClose, randomNormal } from "../assert_close.ts";
import { testGpu } from "../gpu_for_tests.ts";
import {
  compareSteps,
  randomParams,
  smallConfig,
  wide,
} from "./compare_steps.ts";
import {
  forwardBackward,
  loss,
  type SaeArrays,
} from "../reference/sae_reference.ts";

const SIZES = { B: 13, d_model: 23, d_sae: 57 };
const FIXTURE = new URL("../fixtures/sae-l1", import.meta.url).pathname;

const config = (sizes = SIZES): TrainerConfig => smallConfig(sizes);

async function stateBytes(trainer: SaeTrainer): Promise<Uint8Array> {
  const chunks = safetensorsChunks(trainer.stateTensors());
  return await new Response(ReadableStream.from(chunks)).bytes();
}

async function stateFile(trainer: SaeTrainer): Promise<Safetensors> {
  return await Safetensors.open(
    memorySource("state", await stateBytes(trainer)),
  );
}

Deno.test("replayTraining() is within 1e-5 of PyTorch in every step", async () => {
  const gpu = await testGpu();
  const checks = await replayTraining(gpu, directory(FIXTURE));
  // 12 steps of 5 metrics, 5 sets of 4 parameters or gradients, 2 of activations.
  equal(checks.length, 12 * 5 + 5 * 4 + 2 * 2);
  deepEqual(checks.filter(({ ok }) => !ok), []);
});

Deno.test("forwardBackward() of the reference agrees with finite differences", () => {
  const sizes = { B: 3, d_model: 5, d_sae: 7 };
  const params = wide(randomParams(sizes, 11)) as SaeArrays;
  const x = randomNormal(sizes.B * sizes.d_model, 3);
  const { grads } = forwardBackward(params, x, 0.7, sizes);
  const h = 1e-6;
  for (const name of ["W_enc", "b_enc", "W_dec", "b_dec"] as const) {
    const numeric = params[name].map((value, i) => {
      const at = (w: number): number => {
        const moved = { ...params, [name]: params[name].with(i, w) };
        return loss(moved, x, 0.7, sizes).loss;
      };
      return (at(value + h) - at(value - h)) / (2 * h);
    });
    // Central differences in float64: h² and 1e-16/h, both far below.
    assertClose(grads[name], numeric, { atol: 1e-7, rtol: 1e-6, label: name });
  }
});

Deno.test("SaeTrainer matches float64 over three steps on odd sizes", async () => {
  const gpu = await testGpu();
  await compareDense(gpu, SIZES);
});

Deno.test("SaeTrainer matches float64 when features span windows", async () => {
  // 64 rows of 23 floats are 5.9 kB: blocks of 64 features, and windows of 64 of them.
  using gpu = await testGpu({ maxBindingBytes: 8_000 });
  await compareDense(gpu, { ...SIZES, d_sae: 201 });
});

Deno.test("SaeTrainer matches float64 when a batch's activations need smaller windows than the weights", async () => {
  // 199 rows of 5 floats fit into 8 kB, 31 · 199 activations do not.
  using gpu = await testGpu({ maxBindingBytes: 8_000 });
  await compareDense(gpu, { B: 31, d_model: 5, d_sae: 199 });
});

/** Steps on the dense path, the only one for odd d_model, with a decoder row of norm 0. */
async function compareDense(gpu: Gpu, sizes: typeof SIZES): Promise<void> {
  await compareSteps(gpu, {
    config: config(sizes),
    path: "dense",
    // A decoder row of norm 0 must not make the gradient infinite.
    prepare({ W_dec, b_enc }): void {
      W_dec.fill(0, 0, sizes.d_model);
      b_enc[0] = 5;
    },
  });
}

Deno.test("SaeTrainer.step() takes packed rows times the input scale", async () => {
  const gpu = await testGpu();
  const rows = f32ToBf16(randomNormal(SIZES.B * SIZES.d_model, 5));
  const scaled = bf16ToF32(rows).map((value) => Math.fround(0.3) * value);
  const values = { lambda: 1, lr: 0.01 };
  const run = async (batch: Parameters<SaeTrainer["step"]>[0]) => {
    const scale = { ...config(), inputScale: 0.3 };
    using trainer = new SaeTrainer(gpu, scale, randomParams(SIZES));
    trainer.step(batch, values);
    return await trainer.params();
  };
  deepEqual(await run(rows), await run(scaled));
});

Deno.test("SaeTrainer gives the same bits when run twice, and after restore()", async () => {
  const gpu = await testGpu();
  const batch = (t: number) => randomNormal(SIZES.B * SIZES.d_model, 30 + t);
  const values = { lambda: 1, lr: 0.01 };
  using straight = new SaeTrainer(gpu, config(), randomParams(SIZES));
  using halved = new SaeTrainer(gpu, config(), randomParams(SIZES));
  for (let t = 0; t < 3; t++) straight.step(batch(t), values);
  const middle = await stateFile(straight);
  for (let t = 3; t < 6; t++) straight.step(batch(t), values);
  await halved.restore(middle, 3);
  for (let t = 3; t < 6; t++) halved.step(batch(t), values);
  deepEqual(await stateBytes(halved), await stateBytes(straight));
  using larger = new SaeTrainer(
    gpu,
    config({ ...SIZES, d_sae: 58 }),
    randomParams({ ...SIZES, d_sae: 58 }),
  );
  await rejects(
    larger.restore(middle, 3),
    /Cannot resume from "state": expected tensor "W_enc" of \[58, 23\]: got \[57, 23\]/,
  );
});

Deno.test("SaeTrainer keeps parameters and moments when a step is not finite", async () => {
  const gpu = await testGpu();
  const good = randomNormal(SIZES.B * SIZES.d_model, 1);
  for (const poison of [NaN, Infinity, 3e38]) {
    using trainer = new SaeTrainer(gpu, config(), randomParams(SIZES));
    const values = { lambda: 1, lr: 0.01 };
    trainer.step(good, values, { metrics: true });
    const before = await stateFile(trainer);
    trainer.step(good.with(7, poison), values);
    trainer.step(good, values, { metrics: true });
    const after = await stateFile(trainer);
    for (const name of before.tensors.keys()) {
      if (name === "tokens_since_fired") continue;
      const [got, want] = [await after.bytes(name), await before.bytes(name)];
      deepEqual(got, want, `${name} after ${poison}`);
    }
    await trainer.settle();
    throws(() => trainer.takeMetrics(), /step 1 \(not finite: mse/);
  }
});

Deno.test("SaeTrainer counts the tokens since a feature fired", async () => {
  const gpu = await testGpu();
  const params = randomParams(SIZES);
  params.b_enc[4] = -1e6;
  using trainer = new SaeTrainer(gpu, config(), params);
  const values = { lambda: 1, lr: 1e-6 };
  let acts = new Float32Array();
  for (let t = 0; t < 3; t++) {
    const x = randomNormal(SIZES.B * SIZES.d_model, t);
    trainer.step(x, values);
    acts = (await trainer.activations()).acts as typeof acts;
  }
  const waited = await trainer.tokensSinceFired();
  equal(waited[4], 3 * SIZES.B);
  for (const [i, tokens] of waited.entries()) {
    const fired = acts.some((act, at) => at % SIZES.d_sae === i && act > 0);
    equal(tokens === 0, fired, `feature ${i}`);
  }
  ok(waited.some((tokens) => tokens === 0));
});

Deno.test("SaeTrainer refuses a batch of another size and activations beyond a binding", async () => {
  using gpu = await testGpu({ maxBindingBytes: 8_000 });
  using trainer = new SaeTrainer(gpu, config(), randomParams(SIZES));
  throws(
    () => trainer.step(new Float32Array(24), { lambda: 0, lr: 0 }),
    RangeError,
  );
  const sizes = { B: 200, d_model: 9, d_sae: 128 };
  throws(
    () => new SaeTrainer(gpu, config(sizes), randomParams(sizes)),
    /Cannot encode 200 tokens at once: expected at most 31/,
  );
});

Deno.test("trainingBytes() is what a trainer takes", async () => {
  const gpu = await testGpu();
  const sizes = { B: 64, d_model: 96, d_sae: 256 };
  const before = gpu.allocatedBytes;
  using _trainer = new SaeTrainer(gpu, config(sizes), randomParams(sizes));
  const taken = gpu.allocatedBytes - before;
  // Partial sums are left out of the plan.
  assertClose([trainingBytes(config(sizes))], [taken], {
    rtol: 0.01,
    label: "bytes",
  });
});

Deno.test("replayTraining() names a tensor that does not fit its steps.json", async () => {
  const gpu = await testGpu();
  const folder = directory(FIXTURE);
  const steps = await Deno.readTextFile(`${FIXTURE}/steps.json`);
  const changed = memoryFolder("changed", {
    "steps.json": new TextEncoder().encode(
      steps.replace(`"n_features": 56`, `"n_features": 57`),
    ),
    "steps.safetensors": await Deno.readFile(
      `${folder.name}/steps.safetensors`,
    ),
  });
  await rejects(
    replayTraining(gpu, changed),
    /expected 1368 values in tensor "init.W_enc"/,
  );
});

Deno.test("initSae() has rows of norm 0.1, tied decoder and biases that center the mean", () => {
  const mean = randomNormal(23, 4);
  const { W_enc, b_enc, W_dec, b_dec } = initSae(mean, 57, 9);
  deepEqual(W_dec, W_enc);
  deepEqual(b_dec, mean);
  for (let i = 0; i < 57; i++) {
    const row = W_enc.subarray(i * 23, (i + 1) * 23);
    const squares = row.reduce((sum, w) => sum + w * w, 0);
    assertClose([squares], [0.01], { rtol: 1e-6, label: "‖row‖²" });
    const pre = row.reduce((sum, w, j) => sum + w * mean[j]!, b_enc[i]!);
    assertClose([pre], [0], { atol: 1e-6, label: "pre(mean)" });
  }
  deepEqual(initSae(mean, 57, 9).W_enc, W_enc);
  ok(initSae(mean, 57, 10).W_enc[0] !== W_enc[0]);
});
