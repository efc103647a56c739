import assert from "node:assert/strict";
import { defineKernel, grid } from "../../gpu/mod.ts";
import { testGpu } from "../gpu_for_tests.ts";

const WGSL = `
// y[t, j] = x[t, j] * weight[j] + shift
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@group(0) @binding(1) var<storage, read> weight: array<f32>;
struct Uniforms { T: u32, d: u32, shift: f32 }
@group(0) @binding(3) var<uniform> u: Uniforms;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x < u.T * u.d) { y[id.x] = x[id.x] * weight[id.x % u.d] + u.shift; }
}
`;

const affineSpec = {
  name: "affine",
  wgsl: WGSL,
  bindings: {
    x: { access: "read", dtype: "f32", shape: ["T", "d"] },
    weight: { access: "read", dtype: "f32", shape: ["d"] },
    y: { access: "read_write", dtype: "f32", shape: ["T", "d"] },
  },
  uniforms: { T: "u32", d: "u32", shift: "f32" },
  workgroups: ({ T, d }: { T: number; d: number }) =>
    grid(Math.ceil(T * d / 64)),
} as const;
const affine = defineKernel(affineSpec);

/** slots[i] = value, one workgroup per launch or element. */
const setSlot = defineKernel({
  name: "set_slot",
  wgsl: `
@group(0) @binding(0) var<storage, read_write> slots: array<u32>;
struct Uniforms { i: u32, value: u32 }
@group(0) @binding(1) var<uniform> u: Uniforms;
@compute @workgroup_size(1) fn main() { slots[u.i] = u.value; }
`,
  bindings: { slots: { access: "read_write", dtype: "u32", shape: ["n"] } },
  uniforms: { i: "u32", value: "u32" },
  workgroups: () => [1, 1, 1],
});

Deno.test("Kernel.run() solves dimensions, packs uniforms and binds by name", async () => {
  const gpu = await testGpu();
  using x = gpu.floats("x", [2, 3], Float32Array.of(1, 2, 3, 4, 5, 6));
  using weight = gpu.floats("weight", [3], Float32Array.of(1, 10, 100));
  using y = gpu.tensor("y", "f32", [2, 3]);
  gpu.record("affine", (rec) => {
    affine.run(rec, { y, weight, x }, { shift: 0.5 });
  });
  assert.deepEqual([...await gpu.read(y)], [
    1.5,
    20.5,
    300.5,
    4.5,
    50.5,
    600.5,
  ]);
});

Deno.test("Kernel.run() names kernel, binding and tensor when one does not fit", async () => {
  const gpu = await testGpu();
  using x = gpu.tensor("resid", "f32", [2, 3]);
  using weight = gpu.tensor("norm.weight", "f32", [4]);
  using bits = gpu.tensor("bits", "u32", [3]);
  using flat = gpu.tensor("flat", "f32", [6]);
  using right = gpu.tensor("right", "f32", [3]);
  const run = (tensors: Parameters<typeof affine.run>[1], values = {}) => () =>
    gpu.record("affine", (rec) => affine.run(rec, tensors, values));
  assert.throws(run({ x, weight, y: x }), {
    name: "RangeError",
    message:
      'Cannot run kernel "affine": binding "weight" must be f32[d=3 (fixed by binding "x")]: got norm.weight: f32[4]',
  });
  assert.throws(run({ x, weight: bits, y: x }), {
    name: "RangeError",
    message:
      'Cannot run kernel "affine": binding "weight" must be f32[d=3 (fixed by binding "x")]: got bits: u32[3]',
  });
  assert.throws(run({ x: flat, weight, y: x }), {
    name: "RangeError",
    message:
      'Cannot run kernel "affine": binding "x" must be f32[T, d]: got flat: f32[6]',
  });
  assert.throws(run({ x, weight: right, y: x }, { T: 5 }), {
    name: "RangeError",
    message:
      'Cannot run kernel "affine": binding "x" must be f32[T=5 (fixed by the call), d]: got resid: f32[2, 3]',
  });
});

Deno.test("Kernel.run() refuses missing tensors and values", async () => {
  const gpu = await testGpu();
  using x = gpu.tensor("x", "f32", [2, 3]);
  using weight = gpu.tensor("weight", "f32", [3]);
  using y = gpu.tensor("y", "f32", [2, 3]);
  for (const values of [{}, { shift: NaN }]) {
    assert.throws(
      () =>
        gpu.record("affine", (rec) => {
          affine.run(rec, { x, weight, y }, values);
        }),
      {
        name: "TypeError",
        message: 'Cannot run kernel "affine": no value for "shift"',
      },
    );
  }
  const incomplete = { x, y } as unknown as Parameters<typeof affine.run>[1];
  assert.throws(
    () => gpu.record("affine", (rec) => affine.run(rec, incomplete)),
    {
      name: "TypeError",
      message: 'Cannot run kernel "affine": no tensor for "weight"',
    },
  );
  await gpu.settled();
});

Deno.test("defineKernel() refuses a declaration that differs from its WGSL", () => {
  const { x, weight, y } = affineSpec.bindings;
  const refuses = (change: object, message: string) =>
    assert.throws(() => defineKernel({ ...affineSpec, ...change }), {
      name: "TypeError",
      message: `Cannot define kernel "affine": affine.wgsl declares ${message}`,
    });
  const inWgsl = "bindings [x: read, weight: read, y: read_write]";
  refuses(
    { bindings: { x, y, weight } },
    `${inWgsl}, TypeScript declares [x: read, y: read_write, weight: read]`,
  );
  refuses(
    { bindings: { x: y, weight, y } },
    `${inWgsl}, TypeScript declares [x: read_write, weight: read, y: read_write]`,
  );
  refuses(
    { bindings: { x, weights: weight, y } },
    `${inWgsl}, TypeScript declares [x: read, weights: read, y: read_write]`,
  );
  refuses(
    { uniforms: { T: "u32", shift: "f32", d: "u32" } },
    "uniforms [T: u32, d: u32, shift: f32], TypeScript declares [T: u32, shift: f32, d: u32]",
  );
  refuses(
    { uniforms: { T: "u32", d: "u32", shift: "u32" } },
    "uniforms [T: u32, d: u32, shift: f32], TypeScript declares [T: u32, d: u32, shift: u32]",
  );
  refuses(
    { overrides: ["d_model"] },
    "overrides [], TypeScript declares [d_model]",
  );
});

Deno.test("defineKernel() passes overrides, consts and i32 uniforms on", async () => {
  const gpu = await testGpu();
  const kernel = defineKernel({
    name: "constants",
    wgsl: `
override width: u32;
@group(0) @binding(0) var<storage, read_write> y: array<i32>;
struct Uniforms { offset: i32 }
@group(0) @binding(1) var<uniform> u: Uniforms;
@compute @workgroup_size(1) fn main() {
  var local: array<i32, SIZE>;
  for (var i = 0u; i < SIZE; i++) { local[i] = i32(i * width) + shifted(u.offset); }
  for (var i = 0u; i < SIZE; i++) { y[i] = local[i]; }
}`,
    helpers: ["fn shifted(x: i32) -> i32 { return x - 1; }"],
    bindings: { y: { access: "read_write", dtype: "i32", shape: ["SIZE"] } },
    overrides: ["width"],
    consts: ["SIZE"],
    uniforms: { offset: "i32" },
    workgroups: () => [1, 1, 1],
  });
  const results: number[][] = [];
  for (const [n, width] of [[2, 10], [2, 20], [3, 10]] as const) {
    using y = gpu.tensor("y", "i32", [n]);
    gpu.record("constants", (rec) => {
      kernel.run(rec, { y }, { width, offset: -4 });
    });
    results.push([...new Int32Array((await gpu.readBytes(y)).buffer)]);
  }
  assert.deepEqual(results, [[-5, 5], [-5, 15], [-5, 5, 15]]);
});

Deno.test("Gpu.record() gives each launch its own uniforms when they fill several pages", async () => {
  const gpu = await testGpu();
  const n = 700; // 256 launches fill a page
  using slots = gpu.tensor("slots", "u32", [n]);
  for (const offset of [1000, 5]) {
    gpu.record("slots", (rec) => {
      for (let i = 0; i < n; i++) {
        setSlot.run(rec, { slots }, { i, value: offset + i });
      }
    });
  }
  const want = Uint32Array.from({ length: n }, (_, i) => 5 + i);
  assert.deepEqual(await gpu.readInts(slots), want);
});

Deno.test("Gpu.record() lets each launch see what the ones before it wrote", async () => {
  const gpu = await testGpu();
  using one = gpu.floats("one", [1, 1], Float32Array.of(1));
  using weight = gpu.floats("weight", [1], Float32Array.of(2));
  using y = gpu.tensor("y", "f32", [1, 1]);
  using z = gpu.tensor("z", "f32", [1, 1]);
  gpu.record("chain", (rec) => {
    affine.run(rec, { x: one, weight, y }, { shift: 1 }); // 3
    affine.run(rec, { x: y, weight, y: z }, { shift: 1 }); // 7
    rec.copy(z, y);
    affine.run(rec, { x: y, weight, y: z }, { shift: 1 }); // 15
  });
  assert.deepEqual([...await gpu.read(z)], [15]);
});

Deno.test("grid() reaches every index when there are more than one dimension takes", async () => {
  assert.deepEqual(grid(65_535), [65_535, 1, 1]);
  for (const n of [65_536, 70_001, 1_000_003]) {
    const [x, y] = grid(n);
    assert.ok(x <= 65_535 && y <= 65_535 && x * y >= n && x * (y - 1) < n);
  }
  const kernel = defineKernel({
    name: "indices",
    wgsl: `
@group(0) @binding(0) var<storage, read_write> y: array<u32>;
struct Uniforms { n: u32 }
@group(0) @binding(1) var<uniform> u: Uniforms;
@compute @workgroup_size(1)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n_wg: vec3<u32>) {
  let i = wg.y * n_wg.x + wg.x;
  if (i < u.n) { y[i] = i + 1u; }
}`,
    bindings: { y: { access: "read_write", dtype: "u32", shape: ["n"] } },
    uniforms: { n: "u32" },
    workgroups: ({ n }) => grid(n),
  });
  const gpu = await testGpu();
  const n = 70_001;
  using y = gpu.tensor("y", "u32", [n]);
  gpu.record("indices", (rec) => kernel.run(rec, { y }));
  const want = Uint32Array.from({ length: n }, (_, i) => i + 1);
  assert.deepEqual(await gpu.readInts(y), want);
});

Deno.test("Recorder.launch() refuses more workgroups than the adapter has", async () => {
  const gpu = await testGpu();
  const kernel = defineKernel({
    ...affineSpec,
    workgroups: () => [100_000, 1, 1],
  });
  using x = gpu.tensor("x", "f32", [2, 3]);
  using weight = gpu.tensor("w", "f32", [3]);
  using y = gpu.tensor("y", "f32", [2, 3]);
  assert.throws(
    () =>
      gpu.record("affine", (rec) => {
        kernel.run(rec, { x, weight, y }, { shift: 0 });
      }),
    {
      name: "RangeError",
      message:
        'Cannot launch kernel "affine" on x: f32[2, 3], w: f32[3], y: f32[2, 3]: workgroups [100000, 1, 1] must be 1 to 65535',
    },
  );
});
