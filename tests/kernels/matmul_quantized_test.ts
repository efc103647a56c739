/** Products by quantized weights, against float64 on what the weights mean. */
import assert from "node:assert/strict";
import { isUsable, matmul, type VariantShape } from "../../kernels/matmul.ts";
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
}
void matmul;
