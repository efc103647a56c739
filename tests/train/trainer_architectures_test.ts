import { equal, throws } from "node:assert/strict";
import { bf16ToF32, f32ToBf16 } from "../../core/dtype.ts";
import {
  largestBatch,
  SaeTrainer,
  type TrainerConfig,
} from "../../train/trainer.ts";
import { assertRelativeError, randomNormal } from "../assert_close.ts";
import { testGpu } from "../gpu_for_tests.ts";
import { compareSteps, randomParams, smallConfig } from "./compare_steps.ts";

const SIZES = { B: 37, d_model: 28, d_sae: 201 };
/** 64 rows of 28 floats are 7.2 kB: blocks of 64 features, and lists of 600 entries. */
const NARROW = { maxBindingBytes: 9_600 };
const FEW = { ...SIZES, B: 9 };
const ALWAYS = { sparseEntries: Infinity };
const NEVER = { sparseEntries: 0 };

const ARCHITECTURES: Record<string, Partial<TrainerConfig>> = {
  relu: { architecture: "relu" },
  topk: { architecture: "topk", k: 7 },
  batchtopk: { architecture: "batchtopk", k: 5 },
  jumprelu: { architecture: "jumprelu", bandwidth: 0.4 },
};

for (const [name, architecture] of Object.entries(ARCHITECTURES)) {
  for (const path of ["dense", "sparse"] as const) {
    const config = smallConfig(SIZES, {
      ...architecture,
      ...(path === "sparse" ? ALWAYS : NEVER),
    });
    Deno.test(`${name} matches float64 on the ${path} path`, async () => {
      await compareSteps(await testGpu(), { config, path });
    });
    Deno.test(`${name} matches float64 on the ${path} path when features span windows`, async () => {
      using gpu = await testGpu(NARROW);
      const few = { ...config, batch: FEW.B };
      const prepare = ({ b_enc }: { b_enc: Float32Array }): void =>
        b_enc.forEach((value, i) => b_enc[i] = value - 1);
      await compareSteps(gpu, { config: few, path, prepare, seed: 40 });
    });
  }
}

for (const name of ["relu", "topk", "jumprelu"]) {
  for (const path of ["dense", "sparse"] as const) {
    Deno.test(`${name} matches float64 on the ${path} path with three batches a step`, async () => {
      const config = smallConfig({ ...SIZES, B: 11 }, {
        ...ARCHITECTURES[name],
        ...(path === "sparse" ? ALWAYS : NEVER),
        accumulate: 3,
      });
      // Few features fire in a batch of 11, so that gradients of some rows begin in a later one.
      const prepare = ({ b_enc }: { b_enc: Float32Array }): void =>
        b_enc.forEach((value, i) => b_enc[i] = i % 3 === 0 ? value - 3 : value);
      await compareSteps(await testGpu(), { config, path, prepare, seed: 60 });
    });
  }
}

for (const name of ["topk", "batchtopk"]) {
  for (const path of ["dense", "sparse"] as const) {
    Deno.test(`${name} with AuxK matches float64 on the ${path} path`, async () => {
      const config = smallConfig(SIZES, {
        ...ARCHITECTURES[name],
        ...(path === "sparse" ? ALWAYS : NEVER),
        k: 2,
        auxK: 9,
        auxCoefficient: 0.5,
        deadAfter: 2 * SIZES.B,
      });
      const gpu = await testGpu();
      await compareSteps(gpu, { config, path, steps: 5, seed: 80 });
    });
  }
}

Deno.test("a decoder row of norm 0 leaves the sparse path finite", async () => {
  await compareSteps(await testGpu(), {
    config: smallConfig(SIZES, ALWAYS),
    path: "sparse",
    prepare({ W_dec, b_enc }): void {
      W_dec.fill(0, 0, SIZES.d_model);
      b_enc[0] = 5;
    },
  });
});

Deno.test("the trainer takes the sparse path up to the number of entries that it is told, and back", async () => {
  const gpu = await testGpu();
  const sizes = { B: 16, d_model: 8, d_sae: 70 };
  const params = randomParams(sizes as never);
  params.W_enc.fill(0);
  const entries = sizes.B * 4; // features 0 to 3 on every row: padded rows have no fifth
  for (
    const [sparseEntries, want] of [[entries, "sparse"], [entries - 1, "dense"]]
  ) {
    const config = smallConfig(sizes, { sparseEntries: Number(sparseEntries) });
    params.b_enc.forEach((_, i) => params.b_enc[i] = i < 4 ? 1 : -1);
    using trainer = new SaeTrainer(gpu, config, params);
    const step = async (): Promise<string> => {
      const x = randomNormal(sizes.B * sizes.d_model, 5);
      trainer.step(x, { lambda: 0, lr: 0 }, { metrics: true });
      await trainer.settle();
      return trainer.takeMetrics()[0]!.path;
    };
    equal(await step(), want);
    trainer.writeParams({ ...params, b_enc: params.b_enc.map(() => 1) });
    equal(await step(), "dense"); // all features on all rows: more than there is room for
    trainer.writeParams(params);
    equal(await step(), want);
  }
});

Deno.test("SaeTrainer says which batch fits where tiles or AuxK's lists exceed a binding", async () => {
  using gpu = await testGpu(NARROW);
  const wide = { B: 30, d_model: 4, d_sae: 64 * 40 };
  throws(
    () => new SaeTrainer(gpu, smallConfig(wide), randomParams(wide as never)),
    /^RangeError: Cannot train on 30 vectors at once: expected at most \d+ with so many features, as the adapter binds 9600 bytes: take smaller batches$/,
  );
  const aux = smallConfig(SIZES, { architecture: "topk", k: 2, auxK: 100 });
  const few = { ...aux, batch: 9 };
  throws(
    () => new SaeTrainer(gpu, few, randomParams(few)),
    /^RangeError: Cannot train with AuxK on 9 vectors at once: expected at most 5 with 100 dead features each, as the adapter binds 9600 bytes: take smaller batches$/,
  );
  for (const [config, most] of [[smallConfig(wide), 15], [few, 5]] as const) {
    equal(largestBatch(config, 9600), most);
  }
});

Deno.test("both paths agree to 1e-6", async () => {
  const gpu = await testGpu();
  const params = randomParams(SIZES as never, 7);
  const run = async (more: Partial<TrainerConfig>) => {
    using trainer = new SaeTrainer(gpu, smallConfig(SIZES, more), params);
    for (let t = 0; t < 4; t++) {
      const x = randomNormal(SIZES.B * SIZES.d_model, 100 + t);
      trainer.step(x, { lambda: 1, lr: 1e-3 });
    }
    return [await trainer.gradients(), await trainer.params()] as const;
  };
  const [dense, sparse] = [await run(NEVER), await run(ALWAYS)];
  for (const [part, name] of [[0, "gradients"], [1, "parameters"]] as const) {
    for (const key of ["W_enc", "b_enc", "W_dec", "b_dec"] as const) {
      const [got, want] = [sparse[part][key], dense[part][key]];
      assertRelativeError(got, want, 1e-6, `${name}.${key}`);
    }
  }
});

Deno.test("packed rows give what the same rows give in f32, within rounding", async () => {
  const gpu = await testGpu();
  // Large enough for operands to be turned, and packed rows with them.
  const sizes = { B: 104, d_model: 72, d_sae: 160 };
  const scale = 0.37;
  for (const architecture of ["relu", "jumprelu"] as const) {
    const params = randomParams({ ...sizes, architecture }, 3);
    const rows = f32ToBf16(randomNormal(sizes.B * sizes.d_model, 8));
    const f32 = bf16ToF32(rows).map((value) => Math.fround(scale) * value);
    const run = async (
      batch: Parameters<SaeTrainer["step"]>[0],
      sparseEntries: number,
    ) => {
      const config = smallConfig(sizes, {
        architecture,
        sparseEntries,
        inputScale: scale,
      });
      using trainer = new SaeTrainer(gpu, config, params);
      trainer.step(batch, { lambda: 1, lr: 1e-3 });
      return [await trainer.gradients(), await trainer.params()] as const;
    };
    for (const sparseEntries of [0, Infinity]) {
      const got = await run(rows, sparseEntries);
      const want = await run(f32, sparseEntries);
      for (const part of [0, 1] as const) {
        for (const key of ["W_enc", "b_enc", "W_dec", "b_dec"] as const) {
          const label = `${architecture} ${sparseEntries} ${part} ${key}`;
          assertRelativeError(got[part][key], want[part][key], 1e-5, label);
        }
      }
    }
  }
});

Deno.test("8-bit moments follow float64 within their precision, and refuse rows of an odd length", async () => {
  const gpu = await testGpu();
  const config = smallConfig(SIZES, { ...ALWAYS, moments: "q8" });
  // The first step's moments are not rounded yet; later ones are off by up to 2 % of the update.
  await compareSteps(gpu, { config, path: "sparse", steps: 1 });
  await compareSteps(gpu, { config, path: "sparse", steps: 6, limit: 2e-2 });
  const odd = { ...SIZES, d_model: 27 };
  throws(
    () =>
      new SaeTrainer(
        gpu,
        smallConfig(odd, { moments: "q8" }),
        randomParams(odd as never),
      ),
    /Cannot train with 8-bit moments: expected a d_model that is a multiple of 4: got 27/,
  );
});
