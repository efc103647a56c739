import assert from "node:assert/strict";
import { defineKernel, ReadbackRing } from "../../gpu/mod.ts";
import { rmsNorm } from "../../kernels/rms_norm.ts";
import { testGpu } from "../gpu_for_tests.ts";

/** A kernel over one tensor with the given body. */
function kernelWith(body: string) {
  return defineKernel({
    name: "broken_sum",
    wgsl: `@group(0) @binding(0) var<storage, read_write> y: array<f32>;
@compute @workgroup_size(64) fn main() { ${body} }`,
    bindings: { y: { access: "read_write", dtype: "f32", shape: ["n"] } },
    workgroups: () => [1, 1, 1],
  });
}

Deno.test("Gpu names a kernel that does not compile, and where it fails", async () => {
  using gpu = await testGpu({});
  using y = gpu.tensor("y", "f32", [1]);
  const kernel = kernelWith("y[0] = undeclared_name;");
  gpu.record("sums", (rec) => kernel.run(rec, { y }));
  await assert.rejects(
    gpu.settled(),
    /^Error: Cannot compile kernel "broken_sum": [^]*undeclared_name/,
  );
});

Deno.test("Gpu.record() throws what went wrong in the one before, naming its kernels", async () => {
  using gpu = await testGpu({});
  using x = gpu.tensor("x", "f32", [1, 4]);
  using weight = gpu.tensor("weight", "f32", [4]);
  // A tensor cannot be read and written by one launch.
  gpu.record("final norm", (rec) => {
    rmsNorm.run(rec, { x, weight, y: x }, { eps: 1e-6 });
  });
  const message =
    /^Error: GPU error in "final norm" \(kernels rms_norm\): [^]*x/;
  await assert.rejects(gpu.read(x), message);
  assert.throws(() => gpu.record("next", () => {}), message);
  assert.throws(() => gpu.throwIfFailed(), message);
});

Deno.test("Gpu.record() throws when a kernel takes a tensor that was disposed of", async () => {
  using gpu = await testGpu({});
  const y = gpu.tensor("gone", "f32", [1]);
  y[Symbol.dispose]();
  const kernel = kernelWith("y[0] = 1.0;");
  gpu.record("late", (rec) => kernel.run(rec, { y }));
  await assert.rejects(
    gpu.settled(),
    /^Error: GPU error in "late" \(kernels broken_sum\): [^]*gone/,
  );
});

Deno.test("Gpu throws errors that no recording caused, too", async () => {
  using gpu = await testGpu({});
  gpu.device.createBuffer({ label: "stray", size: 4, usage: 0 });
  await new Promise((resolve) => setTimeout(resolve, 20));
  assert.throws(() => gpu.record("next", () => {}), /^Error: GPU error: /);
});

Deno.test("Gpu.record() refuses to be called within another, and goes on after a throw", async () => {
  const gpu = await testGpu();
  assert.throws(
    () => gpu.record("outer", () => gpu.record("inner", () => {})),
    {
      name: "Error",
      message:
        'Cannot record "inner" within "outer": record one after the other',
    },
  );
  using y = gpu.tensor("y", "f32", [1]);
  const kernel = kernelWith("y[0] = 3.0;");
  gpu.record("after", (rec) => kernel.run(rec, { y }));
  assert.deepEqual([...await gpu.read(y)], [3]);
});

Deno.test("Gpu reports that its device was lost", async () => {
  using gpu = await testGpu({});
  using y = gpu.tensor("y", "f32", [1]);
  using ring = new ReadbackRing<number>(gpu, y);
  gpu.record("copy", (rec) => ring.copy(rec, 0));
  gpu.device.destroy();
  const lost =
    /^GpuLostError: GPU ".+" was lost \(destroyed\): .*: start again$/;
  await assert.rejects(ring.drain(), lost);
  await assert.rejects(gpu.read(y), lost);
  assert.throws(() => gpu.record("next", () => {}), lost);
});

Deno.test("Gpu is silent about a device that it closed itself", async () => {
  const gpu = await testGpu({});
  gpu[Symbol.dispose]();
  await gpu.device.lost;
  gpu.throwIfFailed();
});

Deno.test("Gpu.record() and read() throw when the GPU was disposed of", async () => {
  const gpu = await testGpu({});
  const y = gpu.tensor("y", "f32", [1]);
  gpu[Symbol.dispose]();
  const gone = /^Error: Cannot record ".+": GPU ".+" was disposed of/;
  assert.throws(() => gpu.record("late", () => {}), gone);
  await assert.rejects(gpu.read(y), gone);
});
