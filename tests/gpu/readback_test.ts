import assert from "node:assert/strict";
import { ReadbackRing } from "../../gpu/mod.ts";
import { testGpu } from "../gpu_for_tests.ts";

Deno.test("ReadbackRing gives each copy as it was, in order, and only once", async () => {
  const gpu = await testGpu();
  using tensor = gpu.tensor("loss", "u32", [2]);
  using ring = new ReadbackRing<string>(gpu, tensor);
  for (let i = 0; i < 20; i++) {
    tensor.write(Uint32Array.of(i, i * i));
    gpu.record("step", (rec) => ring.copy(rec, `step ${i}`));
  }
  assert.equal(ring.pending, 20);
  assert.deepEqual(ring.take(), []);
  await ring.drain();
  assert.equal(ring.pending, 0);
  const got = ring.take().map(({ tag, bytes }) => [
    tag,
    ...new Uint32Array(bytes),
  ]);
  const want = Array.from({ length: 20 }, (_, i) => [`step ${i}`, i, i * i]);
  assert.deepEqual(got, want);
  assert.deepEqual(ring.take(), []);
});

Deno.test("ReadbackRing.drain() leaves the newest under way, and reuses buffers", async () => {
  const gpu = await testGpu();
  using tensor = gpu.tensor("loss", "f32", [1]);
  using ring = new ReadbackRing<number>(gpu, tensor);
  let nBuffers = 0;
  const { createBuffer } = gpu.device;
  gpu.device.createBuffer = (descriptor) => {
    nBuffers++;
    return createBuffer.call(gpu.device, descriptor);
  };
  try {
    const tags: number[] = [];
    for (let i = 0; i < 12; i++) {
      gpu.record("step", (rec) => ring.copy(rec, i));
      await ring.drain(2);
      assert.ok(ring.pending <= 2);
      tags.push(...ring.take().map(({ tag }) => tag));
    }
    await ring.drain();
    tags.push(...ring.take().map(({ tag }) => tag));
    assert.deepEqual(tags, [...Array(12).keys()]);
    assert.ok(nBuffers <= 3, `${nBuffers} staging buffers for 3 copies`);
  } finally {
    gpu.device.createBuffer = createBuffer;
  }
});

Deno.test("ReadbackRing forgets copies under way when it is disposed of", async () => {
  const gpu = await testGpu();
  using tensor = gpu.tensor("loss", "f32", [1]);
  {
    using ring = new ReadbackRing<number>(gpu, tensor);
    gpu.record("step", (rec) => ring.copy(rec, 0));
  }
  // An unhandled rejection would end the process within this time.
  await new Promise((resolve) => setTimeout(resolve, 50));
  await gpu.settled();
});

Deno.test("ReadbackRing.drain() throws when a copy cannot arrive", async () => {
  const gpu = await testGpu();
  using tensor = gpu.tensor("loss", "f32", [1]);
  using ring = new ReadbackRing<number>(gpu, tensor);
  const { createBuffer } = gpu.device;
  let staging: GPUBuffer | undefined;
  gpu.device.createBuffer = (descriptor) =>
    staging = createBuffer.call(gpu.device, descriptor);
  try {
    gpu.record("step", (rec) => ring.copy(rec, 0));
  } finally {
    gpu.device.createBuffer = createBuffer;
  }
  staging!.destroy();
  await assert.rejects(ring.drain(), /destroyed/);
  assert.deepEqual(ring.take(), []);
});
