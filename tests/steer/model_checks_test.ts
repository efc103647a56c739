import assert from "node:assert/strict";
import { directory } from "../../core/files.ts";
import { Safetensors, safetensorsChunks } from "../../core/safetensors.ts";
import { memorySource, readJson } from "../../core/source.ts";
import { checkModel } from "../../steer/model_checks.ts";
import { checkSampling } from "../../steer/sampling_checks.ts";
import { testGpu } from "../gpu_for_tests.ts";

const fixture = (name: string) => directory(`tests/fixtures/${name}`);

async function expectedOf(
  name: string,
): Promise<{ expected: Safetensors; json: unknown }> {
  const folder = fixture(name);
  return {
    expected: await Safetensors.open(await folder.open("expected.safetensors")),
    json: await readJson(await folder.open("expected.json")),
  };
}

const GOLDEN = [
  {
    name: "olmo2-mha-f32",
    model: fixture("olmo2-mha-f32"),
    rope: "f32",
    nChecks: 14,
  },
  {
    name: "olmo2-gqa-bf16-sharded",
    model: fixture("olmo2-gqa-bf16-sharded"),
    rope: "bf16",
    nChecks: 13,
  },
  {
    name: "tiny-olmo2",
    model: directory("models/tiny-olmo2"),
    rope: "f32",
    nChecks: 32,
  },
] as const;

for (const { name, model, rope, nChecks } of GOLDEN) {
  Deno.test(`checkModel() finds ${name} equal to Hugging Face within 1e-5, greedy tokens identical`, async () => {
    const { expected, json } = await expectedOf(name);
    const report = await checkModel(await testGpu(), model, expected, json);
    const failed = report.checks.filter(({ ok }) => !ok);
    assert.deepEqual(failed, []);
    assert.equal(report.checks.length, nChecks);
    assert.equal(report.rope, rope);
  });
}

Deno.test("checkModel() fails where one value of a stream is off by 1e-3 of its norm, and names it", async () => {
  const { expected, json } = await expectedOf("olmo2-mha-f32");
  const tensors = await Promise.all(
    expected.tensors.values().map(async ({ name, dtype, shape }) => {
      const bytes = await expected.bytes(name);
      if (name === "resid_post.2") {
        const values = new Float32Array(bytes.buffer);
        values[0]! += 1e-3 * Math.hypot(...values);
      }
      return { name, dtype, shape, bytes };
    }),
  );
  const file = new Uint8Array(
    await new Blob(
      await Array.fromAsync(safetensorsChunks(tensors)) as BlobPart[],
    ).arrayBuffer(),
  );
  const changed = await Safetensors.open(
    memorySource("changed.safetensors", file),
  );
  const { checks } = await checkModel(
    await testGpu(),
    fixture("olmo2-mha-f32"),
    changed,
    json,
  );
  assert.deepEqual(checks.filter(({ ok }) => !ok).map(({ name }) => name), [
    "resid_post.2",
  ]);
});

Deno.test("checkModel() compares what the file holds, and no more", async () => {
  const { expected } = await expectedOf("olmo2-mha-f32");
  const names = ["input_ids", "attention_mask", "logits"];
  const tensors = await Promise.all(names.map(async (name) => {
    const { dtype, shape } = expected.info(name);
    return { name, dtype, shape, bytes: await expected.bytes(name) };
  }));
  const chunks = await Array.fromAsync(
    safetensorsChunks(tensors),
  ) as BlobPart[];
  const file = new Uint8Array(await new Blob(chunks).arrayBuffer());
  const few = await Safetensors.open(memorySource("few.safetensors", file));
  const { checks } = await checkModel(
    await testGpu(),
    fixture("olmo2-mha-f32"),
    few,
    {},
  );
  assert.deepEqual(checks.map(({ name, ok }) => [name, ok]), [[
    "logits",
    true,
  ]]);
});

Deno.test("checkModel() refuses a file with nothing to compare", async () => {
  const expected = await Safetensors.open(
    await fixture("sampling").open("expected.safetensors"),
  );
  await assert.rejects(
    async () =>
      await checkModel(await testGpu(), fixture("olmo2-mha-f32"), expected, {}),
    /expected tensors such as input_ids and logits/,
  );
});

Deno.test("checkModel() refuses the file of a model of other sizes, and names both", async () => {
  const { expected } = await expectedOf("olmo2-gqa-bf16-sharded");
  await assert.rejects(
    async () =>
      await checkModel(await testGpu(), fixture("olmo2-mha-f32"), expected, {}),
    {
      name: "TypeError",
      message:
        /^Cannot verify model ".*olmo2-mha-f32" against ".*olmo2-gqa-bf16-sharded\/expected\.safetensors": expected tensor "logits" to be 131 wide: got \[3, 23, 203\]: give the model that it was computed with$/,
    },
  );
});

Deno.test("checkSampling() finds probabilities equal to Hugging Face within 1e-6", async () => {
  const expected = await Safetensors.open(
    await fixture("sampling").open("expected.safetensors"),
  );
  const checks = await checkSampling(await testGpu(), expected);
  assert.equal(checks.length, 11);
  assert.deepEqual(checks.filter(({ ok }) => !ok), []);
});
