import { deepEqual, equal, throws } from "node:assert/strict";
import { RowRing } from "../../train/row_ring.ts";
import { testGpu } from "../gpu_for_tests.ts";

const WORDS = 2;

/** Rows whose two elements of bf16 each say which row they are: small whole numbers are exact. */
function rowsFrom(first: number, n: number): Uint32Array<ArrayBuffer> {
  return Uint32Array.from({ length: n * WORDS }, (_, at) => {
    const row = first + Math.floor(at / WORDS);
    const bits = new Uint32Array(Float32Array.of(row).buffer)[0]! >>> 16;
    return bits | bits << 16;
  });
}

Deno.test("RowRing stores, loads and picks rows around its end and over windows", async () => {
  // 64 rows of 8 bytes a window.
  using gpu = await testGpu({ maxBindingBytes: 512 });
  using ring = new RowRing(gpu, { capacity: 150, batch: 5, d_model: 3 });
  using packed = gpu.tensor("packed", "u32", [60, WORDS]);
  const put = (first: number, n: number): void => {
    packed.write(rowsFrom(first, n));
    gpu.record("store", (rec) => ring.store(rec, packed, n, first % 150));
  };
  // Rows 40 to 189 are left.
  for (let first = 0; first < 190; first += 38) put(first, 38);
  using loaded = gpu.tensor("loaded", "u32", [60, WORDS]);
  gpu.record("load", (rec) => ring.load(rec, loaded, 60, 120));
  deepEqual([...await gpu.readInts(loaded)], [...rowsFrom(120, 60)]);
  const rows = [40, 149, 150, 189, 64];
  const batch = ring.pick(Uint32Array.from(rows, (row) => row % 150));
  // What is stored after the batch was picked does not reach it.
  put(190, 60);
  using x = gpu.tensor("x", "f32", [5, 3]);
  gpu.record("fill", (rec) => batch.fill(rec, x, 0.5));
  deepEqual(
    [...await gpu.read(x)],
    rows.flatMap((row) => Array(3).fill(row / 2)),
  );
});

Deno.test("RowRing.pick() uses the memory of batches again once they are filled in, and refuses those", async () => {
  const gpu = await testGpu();
  using ring = new RowRing(gpu, { capacity: 10, batch: 2, d_model: 4 });
  using packed = gpu.upload("packed", "u32", [10, WORDS], rowsFrom(0, 10));
  gpu.record("store", (rec) => ring.store(rec, packed, 10, 0));
  using x = gpu.tensor("x", "f32", [2, 4]);
  const fill = async (
    batch: ReturnType<RowRing["pick"]>,
  ): Promise<number[]> => {
    gpu.record("fill", (rec) => batch.fill(rec, x, 1));
    return [...await gpu.read(x)].filter((_, at) => at % 4 === 0);
  };
  const first = ring.pick(Uint32Array.of(1, 2));
  const second = ring.pick(Uint32Array.of(3, 4));
  const bytes = gpu.allocatedBytes;
  deepEqual(await fill(first), [1, 2]);
  const third = ring.pick(Uint32Array.of(5, 6));
  equal(gpu.allocatedBytes, bytes);
  deepEqual(await fill(second), [3, 4]);
  deepEqual(await fill(third), [5, 6]);
  throws(
    () => gpu.record("fill", (rec) => first.fill(rec, x, 1)),
    /Cannot fill in a batch: expected one that was not used yet/,
  );
});
