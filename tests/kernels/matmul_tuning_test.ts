import { deepEqual, equal, ok } from "node:assert/strict";
import {
  matmul,
  matmulKey,
  type MatmulShape,
  resolveVariant,
} from "../../kernels/matmul.ts";
import {
  candidatesOf,
  isFaster,
  partOf,
  tuneMatmuls,
} from "../../kernels/matmul_tuning.ts";
import { adapterIdentity } from "../../gpu/tuning.ts";
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

Deno.test("tuneMatmuls() leaves no memory behind, and puts what it knows already in use", async () => {
  using gpu = await testGpu({});
  gpu.tuning.mode = "on";
  const known = { ...SHAPE, K: 44 };
  const unknown = { ...SHAPE, layout: "mk,kn" } as const;
  const store = {
    load: () =>
      Promise.resolve({
        version: 2,
        adapters: {
          [adapterIdentity(gpu.device.adapterInfo)]: { [matmulKey(known)]: 7 },
        },
      }),
    save: () => Promise.resolve(),
  };
  await gpu.tuning.attach(store, "on");
  deepEqual(gpu.tuning.decisions(), {});
  const before = gpu.allocatedBytes;
  await tuneMatmuls(gpu, [known, unknown]);
  equal(gpu.allocatedBytes, before);
  const { [matmulKey(known)]: kept, [matmulKey(unknown)]: found } = gpu.tuning
    .decisions();
  equal(kept, 7, "not timed again");
  ok(found !== undefined);
});

Deno.test("candidatesOf() offers 16-byte loads where sizes allow them, and one variant of the other kind", async () => {
  for (const isSoftware of [true, false]) {
    using gpu = await testGpu({ isSoftware });
    const [own, other] = isSoftware
      ? ["registers", "workgroup"]
      : ["workgroup", "registers"];
    for (const K of [40, 41]) {
      const candidates = candidatesOf(gpu, { ...SHAPE, K });
      const kinds = candidates.map(({ kind }) => kind);
      equal(kinds.filter((kind) => kind === other).length, 1);
      ok(kinds.filter((kind) => kind === own).length >= 5, `${kinds}`);
      equal(candidates.slice(1).some(({ vec }) => vec), K === 40);
      equal(candidates.slice(1).some(({ vec }) => !vec), K === 41);
    }
  }
  using card = await testGpu({ isSoftware: false });
  const few = candidatesOf(card, { ...SHAPE, M: 2 });
  ok(few.filter(({ kind }) => kind === "dot").length >= 3);
});

Deno.test("partOf() takes small products whole, and of large ones few rows and columns of the same K", () => {
  deepEqual(partOf(SHAPE, true), { M: 36, N: 132, K: 40 });
  const large = { ...SHAPE, M: 4096, N: 65_536, K: 4096 };
  deepEqual(partOf(large, true), { M: 256, N: 512, K: 4096 });
  deepEqual(partOf(large, false), { M: 2048, N: 4096, K: 4096 });
  // A part is not loaded otherwise than the whole: a multiple of 8, unless it is all that there is.
  deepEqual(partOf({ ...large, M: 37 }, true), { M: 37, N: 2048, K: 4096 });
  const wide = partOf({ ...large, K: 2 ** 21 }, true);
  ok(2 * wide.M * wide.N * wide.K <= 2 ** 30);
  ok(4 * Math.max(wide.M, wide.N) * wide.K <= 2 ** 26);
});

Deno.test("isFaster() asks for a gain in three of four rounds and in the least times", () => {
  const { kind, tile } = { kind: "registers", tile: [8, 8] } as const;
  const timed = (...ms: number[]) => ({
    variant: { kind, tile, workgroup: [8, 1], vec: true } as const,
    ms,
  });
  const usual = timed(10, 20, 10, 10);
  equal(isFaster(timed(9, 18, 9, 9), usual), true);
  equal(isFaster(timed(9, 18, 9, 11), usual), true);
  equal(isFaster(timed(9, 18, 11, 11), usual), false, "half of the rounds");
  equal(isFaster(timed(9, 18, 9), usual), false, "too few rounds");
  equal(isFaster(timed(9.9, 19, 9.9, 9.9), usual), false, "noise");
  equal(isFaster(timed(5, 21, 11, 11), usual), false, "one lucky round");
  equal(isFaster(timed(12, 10, 9.9, 12), usual), false, "others' load");
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
