import assert from "node:assert/strict";
import {
  bytesOf,
  bytesPerRow,
  type Gpu,
  type QuantizedDtype,
  type Tensor,
} from "../../gpu/mod.ts";
import { testGpu } from "../gpu_for_tests.ts";

/** A GPU on which rows of 32 bytes lie in blocks of 64. */
function gpuWithSmallBindings(): Promise<Gpu> {
  return testGpu({ maxBindingBytes: 64 * 32 + 100 });
}

const counting = (n: number) => Float32Array.from({ length: n }, (_, i) => i);

Deno.test("Tensor gives back what was uploaded for every dtype and odd sizes", async () => {
  const gpu = await testGpu();
  const words = Uint32Array.of(0, 1, 0x7fc00001, 0xffffffff, 5);
  using u32 = gpu.upload("u32", "u32", [5], words);
  assert.deepEqual(await gpu.readInts(u32), words);
  using i32 = gpu.upload("i32", "i32", [5, 1], words);
  assert.deepEqual(await gpu.readInts(i32), words);
  const floats = Float32Array.of(-0, 1e-30, -3.5e38, Infinity, 0.1, 7);
  using f32 = gpu.floats("f32", [2, 3], floats);
  assert.deepEqual(await gpu.read(f32), floats);
  for (const dtype of ["bf16", "f16"] as const) {
    for (const shape of [[1], [1, 3], [3, 3], [3, 5, 7], [2, 3]]) {
      const n = shape.reduce((a, b) => a * b);
      const halves = Uint16Array.from({ length: n }, (_, i) => 0xff00 + i);
      using tensor = gpu.upload("halves", dtype, shape, halves);
      assert.equal(tensor.byteLength, 2 * n);
      const bytes = await gpu.readBytes(tensor);
      assert.deepEqual(new Uint16Array(bytes.buffer), halves, `${tensor}`);
    }
  }
});

Deno.test("Gpu.tensor() is all zero until written, and names itself", async () => {
  const gpu = await testGpu();
  using tensor = gpu.tensor("resid_post[7]", "f32", [3, 7]);
  assert.deepEqual(await gpu.read(tensor), new Float32Array(21));
  assert.equal(`${tensor}`, "resid_post[7]: f32[3, 7]");
  assert.equal(tensor.binding.buffer.label, "resid_post[7]");
});

Deno.test("Gpu.tensor() splits rows into blocks when they exceed a binding", async () => {
  using gpu = await gpuWithSmallBindings();
  using tensor = gpu.tensor("W_enc", "f32", [200, 8]);
  assert.equal(tensor.isBindable, false);
  assert.throws(() => tensor.binding, {
    name: "RangeError",
    message:
      "Cannot bind W_enc: f32[200, 8]: it spans 4 buffers: take its windows()",
  });
  const windows = [...tensor.windows()];
  assert.deepEqual(
    windows.map(({ start, end }) => [start, end]),
    [[0, 64], [64, 128], [128, 192], [192, 200]],
  );
  assert.deepEqual(windows[3]!.tensor.shape, [8, 8]);
  for (const { tensor: part } of windows) {
    assert.ok(
      part.binding.size! <= gpu.limits.maxStorageBufferBindingSize,
    );
  }
  const values = counting(1600);
  tensor.write(values);
  assert.deepEqual(await gpu.read(tensor), values);
  assert.deepEqual(
    await gpu.read(windows[1]!.tensor),
    values.subarray(512, 1024),
  );
});

Deno.test("Tensor.write() fills rows across blocks and leaves the others", async () => {
  using gpu = await gpuWithSmallBindings();
  using tensor = gpu.tensor("W_dec", "f32", [130, 8]);
  const want = new Float32Array(1040);
  for (const [row, nRows] of [[60, 69], [129, 1], [0, 1]] as const) {
    const values = counting(8 * nRows).map((x) => x + 1);
    want.set(values, 8 * row);
    tensor.write(values, row);
  }
  assert.deepEqual(await gpu.read(tensor), want);
});

Deno.test("Tensor.write() keeps bf16 rows of odd length apart across blocks", async () => {
  using gpu = await testGpu({ maxBindingBytes: 64 * 6 });
  using tensor = gpu.tensor("odd", "bf16", [131, 3]);
  assert.equal([...tensor.windows()].length, 3);
  const want = Uint16Array.from({ length: 393 }, (_, i) => i + 1);
  tensor.write(want);
  tensor.write(want.subarray(180, 192).map((x) => x + 1000), 60);
  tensor.write(want.subarray(390).map((x) => x + 2000), 130);
  want.set(want.subarray(180, 192).map((x) => x + 1000), 180);
  want.set(want.subarray(390).map((x) => x + 2000), 390);
  const bytes = await gpu.readBytes(tensor);
  assert.deepEqual(new Uint16Array(bytes.buffer), want);
});

Deno.test("Tensor.write() refuses what is not whole rows, words and in range", async () => {
  const gpu = await testGpu();
  using floats = gpu.tensor("x", "f32", [4, 3]);
  const refuses = (write: () => void, message: RegExp) =>
    assert.throws(write, { name: "RangeError", message });
  refuses(
    () => floats.write(new Float32Array(4)),
    /^Cannot write 16 bytes at row 0 of x: f32\[4, 3\]: rows have 12 bytes$/,
  );
  refuses(() => floats.write(new Float32Array(6), 3), /24 bytes at row 3/);
  refuses(() => floats.write(new Float32Array(3), -1), /at row -1/);
  refuses(() => floats.write(new Float32Array(3), 0.5), /at row 0.5/);
  using odd = gpu.tensor("h", "bf16", [4, 3]);
  refuses(
    () => odd.write(new Uint16Array(3), 0),
    /^Cannot write rows \[0, 1\) of h: bf16\[4, 3\]: they start or end within a 4-byte word/,
  );
  refuses(() => odd.write(new Uint16Array(3), 1), /within a 4-byte word/);
  refuses(() => odd.write(new Uint16Array(3), 3), /within a 4-byte word/);
});

Deno.test("Gpu.upload() refuses values that do not fill the tensor", async () => {
  const gpu = await testGpu();
  const before = gpu.allocatedBytes;
  for (const n of [3, 9, 7]) {
    assert.throws(() => gpu.floats("x", [2, 3], new Float32Array(n)), {
      name: "RangeError",
      message: `Cannot upload x: f32[2, 3]: expected 24 bytes: got ${4 * n}`,
    });
  }
  assert.equal(gpu.allocatedBytes, before);
});

Deno.test("Gpu.tensor() refuses sizes that no tensor has", async () => {
  using gpu = await gpuWithSmallBindings();
  for (const shape of [[], [0], [3, 0], [-1, 2], [1.5], [NaN], [2 ** 53]]) {
    assert.throws(
      () => gpu.tensor("x", "f32", shape),
      /^RangeError: Cannot make tensor x: f32\[.*\]: every size must be a positive integer$/,
    );
  }
  assert.throws(() => gpu.tensor("wide", "f32", [100, 9]), {
    name: "RangeError",
    message:
      "Cannot make tensor wide: f32[100, 9]: 64 rows of 36 bytes exceed the adapter's binding limit of 2148 bytes",
  });
});

Deno.test("Tensor.rows() shares memory and refuses rows that no binding can hold", async () => {
  using gpu = await gpuWithSmallBindings();
  using tensor = gpu.tensor("k", "f32", [100, 8]);
  tensor.write(counting(800));
  const part = tensor.rows(72, 75);
  assert.equal(`${part}`, "k[72:75]: f32[3, 8]");
  assert.equal(part.binding.offset, 256);
  assert.deepEqual(await gpu.read(part), counting(800).subarray(576, 600));
  part.write(new Float32Array(24));
  assert.equal((await gpu.read(tensor))[576], 0);
  part[Symbol.dispose]();
  assert.equal((await gpu.read(tensor))[575], 575);

  const refuses = (start: number, end: number, reason: string) =>
    assert.throws(() => tensor.rows(start, end), {
      name: "RangeError",
      message:
        `Cannot take rows [${start}, ${end}) of k: f32[100, 8]: ${reason}`,
    });
  refuses(-1, 3, "out of range");
  refuses(3, 3, "out of range");
  refuses(64, 101, "out of range");
  refuses(56, 65, "they span blocks of 64 rows");
  refuses(1, 3, "byte 32 is not a multiple of 256");
});

Deno.test("Tensor.reshape() keeps the memory and refuses other counts", async () => {
  const gpu = await testGpu();
  using tensor = gpu.floats("x", [2, 6], counting(12));
  const other: Tensor = tensor.reshape([3, 4]);
  assert.equal(`${other}`, "x: f32[3, 4]");
  assert.deepEqual(await gpu.read(other), counting(12));
  assert.throws(() => tensor.reshape([3, 5]), {
    name: "RangeError",
    message: "Cannot reshape x: f32[2, 6] to [3, 5]",
  });
});

Deno.test("Gpu counts the bytes of living tensors and their peak", async () => {
  using gpu = await testGpu({});
  const first = gpu.tensor("a", "f32", [4, 4]);
  const second = gpu.tensor("b", "bf16", [3]);
  assert.equal(gpu.allocatedBytes, 70);
  first[Symbol.dispose]();
  first[Symbol.dispose]();
  assert.equal(gpu.allocatedBytes, 6);
  using third = gpu.tensor("c", "u32", [2]);
  assert.equal(gpu.allocatedBytes, 6 + third.byteLength);
  second[Symbol.dispose]();
  assert.equal(gpu.allocatedBytes, 8);
  assert.equal(gpu.peakBytes, 70);
});

Deno.test("Gpu.read() refuses tensors of another dtype", async () => {
  const gpu = await testGpu();
  using words = gpu.tensor("ids", "u32", [2]);
  using halves = gpu.tensor("w", "bf16", [2]);
  await assert.rejects(gpu.read(words), {
    name: "TypeError",
    message:
      "Cannot read ids: u32[2]: expected f32: take its bytes with readBytes",
  });
  await assert.rejects(gpu.read(halves), TypeError);
  await assert.rejects(gpu.readInts(halves), TypeError);
});

Deno.test("Recorder.copy() moves rows and refuses those that do not fit", async () => {
  const gpu = await testGpu();
  using x = gpu.floats("x", [3, 2], counting(6));
  using y = gpu.floats("y", [4, 2], new Float32Array(8).fill(9));
  gpu.record("copy", (rec) => {
    rec.copy(x, y, { fromRow: 1, toRow: 2, nRows: 2 });
  });
  assert.deepEqual([...await gpu.read(y)], [9, 9, 9, 9, 2, 3, 4, 5]);

  using h = gpu.upload("h", "bf16", [2, 3], new Uint16Array(6).fill(1));
  using wide = gpu.tensor("wide", "f32", [3, 3]);
  const refuses = (from: Tensor, to: Tensor, options: object) =>
    assert.throws(
      () => gpu.record("copy", (rec) => rec.copy(from, to, options)),
      /^RangeError: Cannot copy \d+ rows of .* from .* to row .* of /,
    );
  refuses(x, wide, {});
  refuses(x, y, { toRow: 2 });
  refuses(x, y, { fromRow: -1, nRows: 1 });
  refuses(x, y, { fromRow: 2, nRows: 2 });
  refuses(h, h, { fromRow: 0, toRow: 1, nRows: 1 });
  using odd = gpu.upload("odd", "bf16", [2, 3], new Uint16Array(6).fill(7));
  refuses(h, odd, { nRows: 1 });
  gpu.record("copy", (rec) => rec.copy(h, odd));
  const bytes = await gpu.readBytes(odd);
  assert.deepEqual([...new Uint16Array(bytes.buffer)], [1, 1, 1, 1, 1, 1]);
});

Deno.test("Recorder.clear() zeroes every block", async () => {
  using gpu = await gpuWithSmallBindings();
  using tensor = gpu.floats("m", [100, 8], counting(800));
  gpu.record("clear", (rec) => rec.clear(tensor));
  assert.deepEqual(await gpu.read(tensor), new Float32Array(800));
});

Deno.test("bytesPerRow() counts integers of whole blocks, and scales up to 16 bytes", () => {
  const rows: [QuantizedDtype, number, number][] = [
    ["q8", 1, 32 + 16],
    ["q8", 32, 32 + 16],
    ["q8", 33, 64 + 16],
    ["q8", 256, 256 + 16],
    ["q8", 257, 288 + 32],
    ["q8", 4096, 4096 + 256],
    ["q4", 31, 16 + 16],
    ["q4", 4096, 2048 + 256],
    ["q4", 11_008, 5504 + 688],
  ];
  for (const [type, K, bytes] of rows) {
    assert.equal(bytesPerRow(type, [3, K]), bytes, `${type} ${K}`);
    assert.equal(bytesOf(type, [3, K]), 3 * bytes);
  }
  for (const shape of [[32], [2, 4, 32]]) {
    assert.throws(() => bytesPerRow("q8", shape), {
      name: "TypeError",
      message: /^Cannot quantize q8\[.*\]: expected a matrix$/,
    });
  }
});

Deno.test("Tensor of a quantized type has rows, windows and bytes, and no other shape", async () => {
  using gpu = await testGpu({ maxBindingBytes: 64 * 80 });
  const bytes = Uint8Array.from({ length: 100 * 80 }, (_, i) => i % 251);
  using tensor = gpu.upload("W", "q8", [100, 64], bytes);
  assert.deepEqual(
    [...tensor.windows()].map(({ start, end }) => [start, end]),
    [[0, 64], [64, 100]],
  );
  assert.deepEqual(await gpu.readBytes(tensor), bytes);
  const rows = tensor.rows(16, 20);
  assert.deepEqual(
    await gpu.readBytes(rows),
    bytes.subarray(16 * 80, 20 * 80),
  );
  assert.throws(() => rows.reshape([2, 128]), /^RangeError: Cannot reshape W/);
});
