import assert from "node:assert/strict";
import { bf16ToF32, f16ToF32, f32ToBf16 } from "../../core/dtype.ts";
import {
  BLOCK,
  bytesOf,
  bytesPerRow,
  type QuantizedDtype,
} from "../../gpu/mod.ts";
import { embed } from "../../kernels/embed.ts";
import { quantize } from "../../kernels/quantize.ts";
import type { WeightDtype } from "../../kernels/unpack.ts";
import { assertClose, poison } from "../assert_close.ts";
import { testGpu } from "../gpu_for_tests.ts";
import {
  blockReference,
  type QuantizedBlock,
  quantizeReference,
  readBlocks,
  squaredError,
} from "../reference/quantize_reference.ts";
import { seededTest } from "./run_kernel.ts";

/** Values as a checkpoint stores them, and what that means. */
function storeAs(
  dtype: WeightDtype,
  values: Float32Array<ArrayBuffer>,
): { stored: ArrayBufferView<ArrayBuffer>; rounded: Float32Array } {
  if (dtype === "f32") return { stored: values, rounded: values };
  if (dtype === "bf16") {
    const stored = f32ToBf16(values);
    return { stored, rounded: bf16ToF32(stored) };
  }
  const stored = new Uint16Array(Float16Array.from(values).buffer);
  return { stored, rounded: f16ToF32(stored) };
}

/** Quantizes rows into a tensor of noise, and reads back its bytes and the first part that is not finite. */
async function quantized(
  type: QuantizedDtype,
  dtype: WeightDtype,
  values: Float32Array<ArrayBuffer>,
  K: number,
  options: { row?: number; rows?: number; maxBindingBytes?: number } = {},
): Promise<{ bytes: Uint8Array<ArrayBuffer>; part: number }> {
  const { row = 0, rows = values.length / K, maxBindingBytes } = options;
  using gpu = await testGpu(
    maxBindingBytes === undefined ? {} : { maxBindingBytes },
  );
  const { stored } = storeAs(dtype, values);
  using source = gpu.upload("source", dtype, [values.length / K, K], stored);
  using target = gpu.tensor("target", type, [rows, K]);
  target.write(new Uint8Array(bytesOf(type, [rows, K])).fill(0x5a));
  using notFinite = gpu.upload("bad", "u32", [1], Uint32Array.of(99));
  gpu.record("quantize", (rec) => {
    quantize(rec, { source, target, row, notFinite, part: 7 });
  });
  const [part] = await gpu.readInts(notFinite);
  return { bytes: await gpu.readBytes(target), part: part! };
}

/** Whether another scale is right too: in q8 the quotient lies halfway between both, in q4 it leaves as little. */
function isAsGood(
  type: QuantizedDtype,
  w: readonly number[],
  got: QuantizedBlock,
  want: QuantizedBlock,
): boolean {
  if (type === "q4") {
    const [a, b] = [squaredError(w, got), squaredError(w, want)];
    return Math.abs(a - b) <= 1e-5 * b;
  }
  // Divisions of shaders may be off by 2.5 units in the last place of f32.
  const quotient = Math.max(...w.map(Math.abs)) / 127;
  const [a, b] = [got.scale - quotient, want.scale - quotient];
  return Math.abs(Math.abs(a) - Math.abs(b)) <= 2 ** -21 * quotient;
}

/** Compares a block with the reference: equal, but where a rounding of f32 decides between neighbors. */
function checkBlock(
  type: QuantizedDtype,
  w: readonly number[],
  got: QuantizedBlock,
  label: string,
): void {
  const want = blockReference(type, w);
  if (got.scale !== want.scale) {
    assert.ok(
      isAsGood(type, w, got, want),
      `${label}: scale ${got.scale}, expected ${want.scale}`,
    );
  }
  const [low, high] = type === "q8" ? [-127, 127] : [-8, 7];
  for (const [k, level] of got.levels.entries()) {
    const exact = got.scale === 0 ? 0 : w[k]! / got.scale;
    const clamped = Math.min(high!, Math.max(low!, exact));
    assert.ok(
      Math.abs(level - clamped) <= 0.5 + 1e-4,
      `${label}[${k}]: level ${level} of ${exact}`,
    );
  }
}

/** Asserts that levels by the same scale are the reference's, but for those whose weight lies halfway between two. */
function checkLevels(
  w: readonly number[],
  got: QuantizedBlock,
  want: QuantizedBlock,
  label: string,
): void {
  if (got.scale !== want.scale) return; // checkBlock has compared them with their weights
  for (const [k, level] of got.levels.entries()) {
    if (level === want.levels[k]) continue;
    const exact = w[k]! / got.scale;
    assert.ok(
      Math.abs(Math.abs(exact - Math.trunc(exact)) - 0.5) <= 1e-4,
      `${label}[${k}]: level ${level} of ${exact}, expected ${want.levels[k]}`,
    );
  }
}

for (const type of ["q8", "q4"] as const) {
  for (const dtype of ["f32", "bf16", "f16"] as const) {
    seededTest(
      `quantize() rounds ${dtype} to ${type} as float64 does`,
      async (draw) => {
        for (const K of [1, 31, 32, 33, 64, 100, 416]) {
          const nRows = 5;
          const values = draw(nRows * K, 0.02);
          const { rounded } = storeAs(dtype, values);
          const { bytes, part } = await quantized(type, dtype, values, K);
          assert.equal(part, 99);
          const blocks = readBlocks(type, bytes, nRows, K);
          let [error, total] = [0, 0];
          const want = quantizeReference(type, rounded, K);
          const wantBlocks = readBlocks(type, want.stored, nRows, K);
          for (const [row, ofRow] of blocks.entries()) {
            for (const [b, block] of ofRow.entries()) {
              const start = row * K + b * BLOCK;
              const w = [
                ...rounded.subarray(start, start + block.levels.length),
              ];
              const label = `row ${row}, block ${b} of K ${K}`;
              checkBlock(type, w, block, label);
              checkLevels(w, block, wantBlocks[row]![b]!, label);
              error += squaredError(w, block);
              total += w.reduce((sum, x) => sum + x * x, 0);
            }
          }
          const relative = Math.sqrt(error / total);
          assert.ok(relative < (type === "q8" ? 0.008 : 0.11), `${relative}`);
        }
      },
    );
  }

  seededTest(
    `quantize() to ${type} keeps blocks of zeros, of one large weight, of very small and of very large ones`,
    async (draw) => {
      const noise = [...draw(BLOCK, 1e-3)];
      const rows = [
        noise.map(() => 0),
        noise.map((x, i) => i === 17 ? -300 : x),
        noise.map((x) => x * 1e-20),
        noise.map((x) => x * 1e33),
        noise.map(() => 0.25),
        noise.map((_, i) => i % 2 === 0 ? 1 : -1),
      ];
      const values = Float32Array.from(rows.flat());
      const { bytes, part } = await quantized(type, "f32", values, BLOCK);
      assert.equal(part, 99);
      const blocks = readBlocks(type, bytes, rows.length, BLOCK);
      for (const [row, [block]] of blocks.entries()) {
        const w = [...values.subarray(row * BLOCK, (row + 1) * BLOCK)];
        checkBlock(type, w, block!, `row ${row}`);
      }
      assert.deepEqual(blocks[0]![0], blockReference(type, rows[0]!));
      assert.equal(blocks[0]![0]!.scale, 0);
      // The large weight is there, and what it dwarfs is 0.
      const { scale, levels } = blocks[1]![0]!;
      assert.ok(Math.abs(scale * levels[17]! + 300) < 300 / 127);
      assert.ok(levels.every((level, k) => level === 0 || k === 17));
      // Weights too small for any arithmetic count as 0.
      const tiny = new Float32Array(BLOCK).fill(2 ** -90);
      const small = await quantized(type, "f32", tiny, BLOCK);
      assert.deepEqual(readBlocks(type, small.bytes, 1, BLOCK)[0]![0], {
        scale: 0,
        levels: [...tiny.fill(0)],
      });
    },
  );

  for (const dtype of ["f32", "bf16", "f16"] as const) {
    for (const bad of [NaN, Infinity, -Infinity]) {
      seededTest(
        `quantize() of ${dtype} to ${type} makes a block with ${bad} NaN, and tells`,
        async (draw) => {
          const K = 3 * BLOCK;
          const values = draw(3 * K);
          values[K + BLOCK + 5] = bad;
          const { bytes, part } = await quantized(type, dtype, values, K);
          assert.equal(part, 7);
          const scales = readBlocks(type, bytes, 3, K).flat()
            .map(({ scale }) => Number.isFinite(scale));
          assert.deepEqual(scales, scales.map((_, i) => i !== 4));
          assert.ok(Number.isNaN(readBlocks(type, bytes, 3, K)[1]![1]!.scale));
        },
      );
    }
  }

  seededTest(
    `quantize() to ${type} fills rows of a tensor of several buffers, and no other`,
    async (draw) => {
      const K = 40;
      const rowBytes = bytesPerRow(type, [1, K]);
      const [row, nRows, rows] = [60, 77, 150];
      const values = draw(nRows * K);
      const { bytes } = await quantized(type, "f32", values, K, {
        row,
        rows,
        maxBindingBytes: 64 * Math.max(rowBytes, 4 * K * 2),
      });
      const { bytes: alone } = await quantized(type, "f32", values, K);
      assert.deepEqual(
        bytes.subarray(row * rowBytes, (row + nRows) * rowBytes),
        alone,
      );
      const others = [
        ...bytes.subarray(0, row * rowBytes),
        ...bytes.subarray((row + nRows) * rowBytes),
      ];
      assert.ok(others.every((byte) => byte === 0x5a));
    },
  );
}

Deno.test("quantize() refuses rows past the end and types that are not quantized", async () => {
  const gpu = await testGpu();
  using source = gpu.tensor("source", "f32", [3, 8]);
  using target = gpu.tensor("target", "q8", [4, 8]);
  using floats = gpu.tensor("floats", "f32", [4, 8]);
  using notFinite = gpu.tensor("bad", "u32", [1]);
  const run = (call: { target: typeof target; row: number }) => () =>
    gpu.record("quantize", (rec) => {
      quantize(rec, { source, notFinite, ...call });
    });
  assert.throws(run({ target, row: 2 }), {
    name: "RangeError",
    message:
      "Cannot quantize source: f32[3, 8] into row 2 of target: q8[4, 8]: out of range",
  });
  assert.throws(run({ target: floats, row: 0 }), {
    name: "TypeError",
    message: "Cannot quantize to f32: expected q8 or q4",
  });
});

seededTest(
  "embed() takes rows of a q8 table in several windows",
  async (draw) => {
    const ids = [130, 0, 64, 63, 7, 127, 130];
    for (const d_model of [7, 64, 100]) {
      const { stored, rounded } = quantizeReference(
        "q8",
        draw(131 * d_model),
        d_model,
      );
      const rowBytes = bytesPerRow("q8", [131, d_model]);
      using gpu = await testGpu({ maxBindingBytes: 64 * rowBytes });
      using table = gpu.upload("table", "q8", [131, d_model], stored);
      assert.equal(table.isBindable, false);
      using idsTensor = gpu.upload("ids", "u32", [7], Uint32Array.from(ids));
      using resid = gpu.floats("resid", [7, d_model], poison(7 * d_model));
      gpu.record(
        "embed",
        (rec) => embed(rec, { ids: idsTensor, table, resid }),
      );
      const want = ids.flatMap((id) => [
        ...rounded.subarray(id * d_model, (id + 1) * d_model),
      ]);
      // One product, rounded once.
      assertClose(await gpu.read(resid), want, {
        rtol: 2 ** -23,
        label: "resid",
        shape: [7, d_model],
      });
    }
  },
);
