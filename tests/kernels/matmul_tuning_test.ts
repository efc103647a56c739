import { deepEqual, equal, ok } from "node:assert/strict";
import {
  matmul,
  matmulKey,
  type MatmulShape,
  resolveVariant,
} from "../../kernels/matmul.ts";
import { candidatesOf, tuneMatmuls } from "../../kernels/matmul_tuning.ts";
import { testGpu } from "../gpu_for_tests.ts";
import { checkAll, drawCase } from "./matmul_cases.ts";
import { seededTest } from "./run_kernel.ts";

const SHAPE: MatmulShape = {
  layout: "mk,nk",
  aType: "f32",
  bType: "f32",
  M: 36,
  N: 132,
  K: 40,
};

for (const isSoftware of [true, false]) {
  seededTest(
    `every candidate of tuneMatmuls() matches float64 (${
      isSoftware ? "software" : "graphics card"
    })`,
    async (draw) => {
      using gpu = await testGpu({ isSoftware });
      using owned = new DisposableStack();
      for (const layout of ["mk,nk", "mk,kn", "km,kn"] as const) {
        const { M, N, K } = SHAPE;
        const candidates = candidatesOf(gpu, { ...SHAPE, layout });
        ok(candidates.length >= 5, `${candidates.length} candidates`);
        await checkAll(
          gpu,
          candidates.map((variant) =>
            drawCase(draw, gpu, owned, layout, "f32", [M, N, K], variant)
          ),
        );
      }
    },
  );
}

Deno.test("tuneMatmuls() times what is unknown, and matmul() takes the winner", async () => {
  using gpu = await testGpu({});
  await tuneMatmuls(gpu, [SHAPE]);
  equal(gpu.tuning.isEmpty, true, "off");
  gpu.tuning.mode = "on";
  const shape = { ...SHAPE, M: 8, N: 24, K: 8 };
  const before = resolveVariant(gpu, shape);
  await tuneMatmuls(gpu, [shape]);
  const decision = gpu.tuning.get(matmulKey(shape));
  deepEqual(resolveVariant(gpu, shape), decision);
  // Another one, to see that it is followed.
  const other = candidatesOf(gpu, shape).find((variant) =>
    variant.kind === before.kind && variant.tile.join() !== before.tile.join()
  )!;
  gpu.tuning.set(matmulKey(shape), other);
  deepEqual(resolveVariant(gpu, shape), other);
  using A = gpu.tensor("A", "f32", [8, 8]);
  using B = gpu.tensor("B", "f32", [24, 8]);
  using C = gpu.tensor("C", "f32", [8, 24]);
  gpu.record("product", (rec) => matmul(rec, { layout: "mk,nk", A, B, C }));
  await gpu.settled();
});

Deno.test("matmul() ignores a decision that is none, or does not fit the product", async () => {
  using gpu = await testGpu({});
  const want = resolveVariant(gpu, SHAPE);
  const wrong = [
    "fast",
    null,
    { kind: "registers" },
    { kind: "registers", tile: [4, 3], workgroup: [8, 1], vec: false },
    {
      kind: "registers",
      tile: [6, 16],
      workgroup: [8, 1],
      vec: true,
      turns: true,
    },
    { kind: "workgroup", tile: [4, 4], workgroup: [64, 64], vec: false },
    { kind: "workgroup", tile: [64, 64], workgroup: [8, 8], vec: false },
  ];
  for (const decision of wrong) {
    gpu.tuning.set(matmulKey(SHAPE), decision);
    deepEqual(resolveVariant(gpu, SHAPE), want, JSON.stringify(decision));
  }
});
