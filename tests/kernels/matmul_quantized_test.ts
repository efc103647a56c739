/** Products by quantized weights, against float64 on what the weights mean. */
import assert from "node:assert/strict";
import { isUsable, matmul, type VariantShape } from "../../kernels/matmul.ts";
import { bytesPerRow } from "../../gpu/mod.ts";
import { quantize } from "../../kernels/quantize.ts";
import { testGpu } from "../gpu_for_tests.ts";
import { checkAll, drawCase, type Size } from "./matmul_cases.ts";
import { seededTest } from "./run_kernel.ts";

/** K of whole blocks, an even and an odd number of them; other sizes odd. */
const WHOLE: readonly Size[] = [
  [1, 5, 32],
  [3, 131, 96],
  [13, 67, 320],
  [8, 64, 288],
];
/** The last block is short. */
const SHORT: readonly Size[] = [
  [1, 5, 7],
  [3, 131, 100],
  [13, 67, 33],
  [5, 64, 65],
];
const VARIANTS: readonly VariantShape[] = [
  { kind: "registers", tile: [1, 4], workgroup: [8, 1], vec: true },
  { kind: "registers", tile: [3, 8], workgroup: [4, 2], vec: true },
  { kind: "registers", tile: [3, 8], workgroup: [4, 2], vec: false },
  { kind: "dot", tile: [1, 4], workgroup: [64, 1], vec: true },
  { kind: "dot", tile: [3, 2], workgroup: [8, 1], vec: true },
  { kind: "workgroup", tile: [4, 4], workgroup: [16, 16], vec: true },
  { kind: "workgroup", tile: [8, 8], workgroup: [16, 16], vec: true },
  { kind: "workgroup", tile: [2, 3], workgroup: [8, 4], vec: false },
];

for (const bType of ["q8", "q4"] as const) {
  seededTest(
    `matmul() by ${bType} matches float64 with every kind of variant`,
    async (draw) => {
      const gpu = await testGpu();
      using owned = new DisposableStack();
      const cases = VARIANTS.flatMap((variant) =>
        [...WHOLE, ...SHORT].flatMap((size) => {
          const [M, N, K] = size;
          const shape = {
            layout: "mk,nk",
            aType: "f32",
            bType,
            M,
            N,
            K,
          } as const;
          const usable = isUsable(gpu, variant, shape);
          assert.equal(
            usable,
            K % 32 === 0 || !variant.vec,
            JSON.stringify(variant),
          );
          if (!usable) return [];
          return [drawCase(draw, gpu, owned, "mk,nk", bType, size, variant)];
        })
      );
      await checkAll(gpu, cases);
    },
  );
  for (const isSoftware of [true, false]) {
    seededTest(
      `matmul() by ${bType} matches float64 with the variant that it chooses itself, ${
        isSoftware ? "software" : "card"
      }`,
      async (draw) => {
        using gpu = await testGpu({ isSoftware });
        using owned = new DisposableStack();
        const sizes: Size[] = [
          [1, 131, 96],
          [2, 40, 1056],
          [9, 131, 64],
          [
            40,
            70,
            96,
          ],
          [150, 200, 1024],
          [3, 9, 40],
        ];
        await checkAll(
          gpu,
          sizes.map((size) => drawCase(draw, gpu, owned, "mk,nk", bType, size)),
        );
      },
    );
  }

  seededTest(
    `matmul() takes a ${bType} B that spans buffers window by window`,
    async (draw) => {
      const [M, N, K] = [3, 277, 64];
      const rowBytes = bytesPerRow(bType, [N, K]);
      // A and C must fit too.
      const maxBindingBytes = 64 * Math.max(rowBytes, 4 * M * N / 64);
      using gpu = await testGpu({ maxBindingBytes });
      using owned = new DisposableStack();
      const cases = VARIANTS.map((variant) =>
        drawCase(draw, gpu, owned, "mk,nk", bType, [M, N, K], variant)
      );
      for (const { call } of cases) assert.equal(call.B.isBindable, false);
      await checkAll(gpu, cases);
    },
  );

  seededTest(
    `matmul() by ${bType} makes NaN of a block that is NaN, and of nothing else`,
    async (draw) => {
      const gpu = await testGpu();
      using owned = new DisposableStack();
      const [M, N, K] = [3, 21, 96];
      const B = draw(N * K);
      B[5 * K + 70] = Infinity;
      const source = owned.use(gpu.floats("source", [N, K], B));
      for (const variant of VARIANTS) {
        const { call } = drawCase(draw, gpu, owned, "mk,nk", bType, [M, N, K]);
        const notFinite = owned.use(gpu.tensor("bad", "u32", [1]));
        gpu.record("product", (rec) => {
          quantize(rec, { source, target: call.B, notFinite });
          matmul(rec, { ...call, variant });
        });
        const C = await gpu.read(call.C);
        for (const [at, value] of C.entries()) {
          assert.equal(
            Number.isNaN(value),
            at % N === 5,
            `${variant.kind} ${at}`,
          );
        }
      }
    },
  );
}

Deno.test("matmul() refuses quantized weights in other layouts, and packed rows by them", async () => {
  const gpu = await testGpu();
  using A = gpu.tensor("A", "f32", [8, 32]);
  using packed = gpu.tensor("A", "bf16", [8, 32]);
  using B = gpu.tensor("B", "q4", [32, 32]);
  using C = gpu.tensor("C", "f32", [8, 32]);
  const run = (call: Parameters<typeof matmul>[1]) => () =>
    gpu.record("product", (rec) => matmul(rec, call));
  assert.throws(run({ layout: "mk,kn", A, B, C }), {
    name: "TypeError",
    message:
      "Cannot multiply A: f32[8, 32] by B: q4[32, 32]: expected f32 by f32 or bf16 in layout mk,kn: got f32 by q4",
  });
  assert.throws(run({ layout: "mk,nk", A: packed, B, C }), {
    name: "TypeError",
    message:
      "Cannot multiply A: bf16[8, 32] by B: q4[32, 32]: expected f32 by f32 or bf16 or f16 or q8 or q4 in layout mk,nk: got bf16 by q4",
  });
});
