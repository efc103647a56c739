/** The kernels that graphics cards take, on whatever driver there is, against the golden files. */
import assert from "node:assert/strict";
import { directory } from "../../core/files.ts";
import { Safetensors } from "../../core/safetensors.ts";
import { readJson } from "../../core/source.ts";
import type { Gpu } from "../../gpu/mod.ts";
import { checkModel } from "../../steer/model_checks.ts";
import { replayTraining } from "../../train/replay.ts";
import { testGpu } from "../gpu_for_tests.ts";

const path = (name: string): string =>
  new URL(`../../${name}`, import.meta.url).pathname;

const MODELS = [
  {
    name: "olmo2-mha-f32",
    model: "tests/fixtures/olmo2-mha-f32",
    nChecks: 14,
    weights: "f32",
  },
  {
    name: "olmo2-gqa-bf16-sharded",
    model: "tests/fixtures/olmo2-gqa-bf16-sharded",
    nChecks: 13,
    weights: "bf16",
  },
  {
    name: "tiny-olmo2",
    model: "models/tiny-olmo2",
    nChecks: 32,
    weights: "bf16",
  },
] as const;

/** Names of the kernels that are launched from now on. */
function launchedKernels(gpu: Gpu): ReadonlySet<string> {
  const names = new Set<string>();
  const pipeline = gpu.pipeline.bind(gpu);
  gpu.pipeline = (launch) => {
    names.add(launch.name);
    return pipeline(launch);
  };
  return names;
}

for (const { name, model, nChecks, weights } of MODELS) {
  Deno.test(`checkModel() finds ${name} equal to Hugging Face within 1e-5 when kernels are those of graphics cards`, async () => {
    using gpu = await testGpu({ isSoftware: false });
    const launched = launchedKernels(gpu);
    const folder = directory(path(`tests/fixtures/${name}`));
    const { checks } = await checkModel(
      gpu,
      directory(path(model)),
      await Safetensors.open(await folder.open("expected.safetensors")),
      await readJson(await folder.open("expected.json")),
    );
    assert.deepEqual(checks.filter(({ ok }) => !ok), []);
    assert.equal(checks.length, nChecks);
    for (
      const kernel of [
        "attention_wide",
        `matmul_dot_mk_nk_${weights}`,
        `matmul_workgroup_mk_nk_${weights}`,
      ]
    ) assert.ok(launched.has(kernel), `${kernel} was launched`);
    assert.ok(![...launched].some((kernel) => kernel.includes("registers")));
  });
}

Deno.test("replayTraining() is within 1e-5 of PyTorch when kernels are those of graphics cards", async () => {
  using gpu = await testGpu({ isSoftware: false });
  const launched = launchedKernels(gpu);
  const checks = await replayTraining(
    gpu,
    directory(path("tests/fixtures/sae-l1")),
  );
  assert.deepEqual(checks.filter(({ ok }) => !ok), []);
  // 12 steps of 5 metrics, 5 sets of 4 parameters or gradients, 2 of activations.
  assert.equal(checks.length, 12 * 5 + 5 * 4 + 2 * 2);
  for (
    const product of [
      "mk_nk_f32_sae_encode_scaled",
      "mk_kn_f32_sae_decode_error",
      "mk_nk_f32_sae_encode_backward",
      "km_kn_f32_sae_decode_backward",
      "km_kn_f32_scaled",
    ]
  ) {
    assert.ok(launched.has(`matmul_workgroup_${product}`), product);
  }
});
