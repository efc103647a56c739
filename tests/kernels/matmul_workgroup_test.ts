import { deepEqual, equal, ok } from "node:assert/strict";
import {
  isUsable,
  matmul,
  type MatmulLayout,
  type MatmulShape,
  type VariantShape,
} from "../../kernels/matmul.ts";
import { workgroupK } from "../../kernels/matmul_workgroup.ts";
import { testGpu } from "../gpu_for_tests.ts";
import {
  type BType,
  checkAll,
  drawCase,
  LAYOUTS,
  ODD_SIZES,
  type Size,
  VEC_SIZES,
} from "./matmul_cases.ts";
import { seededTest } from "./run_kernel.ts";

const SHAPES: readonly Pick<VariantShape, "tile" | "workgroup">[] = [
  { tile: [4, 4], workgroup: [16, 16] },
  { tile: [8, 4], workgroup: [16, 16] },
  { tile: [8, 8], workgroup: [16, 16] },
  { tile: [4, 4], workgroup: [8, 8] },
  { tile: [8, 8], workgroup: [8, 8] },
];

/** Row lengths of 16-byte loads where an operand is packed. */
const PACKED_SIZES: Readonly<Record<MatmulLayout, readonly Size[]>> = {
  "mk,nk": [[3, 131, 104], [33, 5, 8], [131, 67, 24]],
  "mk,kn": [[3, 8, 8], [33, 136, 104], [131, 72, 24]],
  "km,kn": [[8, 8, 7], [136, 72, 149]],
};

/** Element types of A and B that a layout takes. */
const TYPES: Readonly<
  Record<MatmulLayout, readonly (readonly ["f32" | "bf16", BType])[]>
> = {
  "mk,nk": [
    ["f32", "f32"],
    ["f32", "bf16"],
    ["f32", "f16"],
    ["bf16", "f32"],
    ["bf16", "bf16"],
    ["bf16", "f16"],
  ],
  "mk,kn": [["f32", "f32"], ["bf16", "f32"], ["f32", "bf16"], ["bf16", "bf16"]],
  "km,kn": [["f32", "f32"], ["bf16", "f32"], ["f32", "bf16"], ["bf16", "bf16"]],
};

for (const layout of LAYOUTS) {
  for (const vec of [false, true]) {
    seededTest(
      `matmul() matches float64 with every tile that a workgroup shares, ${layout}, ${
        vec ? "16-byte" : "4-byte"
      } loads`,
      async (draw) => {
        using gpu = await testGpu({ isSoftware: false });
        using owned = new DisposableStack();
        const cases = SHAPES.flatMap((shape, i) =>
          TYPES[layout].flatMap(([aType, bType], j) => {
            const variant = { kind: "workgroup", vec, ...shape } as const;
            // All tiles for f32, two for each of the other types.
            if (j > 0 && i % 3 !== 0) return [];
            const isPacked = aType !== "f32" || bType !== "f32";
            const sizes: readonly Size[] = !vec
              ? [...ODD_SIZES.slice(-3), [131, 67, 21]]
              : isPacked
              ? PACKED_SIZES[layout]
              : [...VEC_SIZES[layout], [132, 68, 20]];
            return sizes.map((size) => {
              const [M, N, K] = size;
              ok(isUsable(gpu, variant, { layout, aType, bType, M, N, K }));
              return drawCase(
                draw,
                gpu,
                owned,
                layout,
                bType,
                size,
                variant,
                aType,
              );
            });
          })
        );
        await checkAll(gpu, cases);
      },
    );
  }
}

Deno.test("workgroupK() keeps a workgroup's tiles within 16 KiB", () => {
  const k = (n: number, vec: boolean, layout: MatmulLayout) =>
    workgroupK({ tile: [n, n], workgroup: [16, 16], vec }, layout);
  // 64 by 64, then 128 by 128: rows along k are one vector longer, and two numbers.
  deepEqual(LAYOUTS.map((layout) => k(4, true, layout)), [16, 16, 16]);
  deepEqual(LAYOUTS.map((layout) => k(8, true, layout)), [8, 8, 16]);
  deepEqual(LAYOUTS.map((layout) => k(8, false, layout)), [8, 8, 8]);
});

Deno.test("isUsable() refuses tiles that a product or a device does not allow", async () => {
  using gpu = await testGpu({ isSoftware: false });
  const small = { ...gpu.limits, maxComputeWorkgroupStorageSize: 4096 };
  const f32 = { aType: "f32", bType: "f32", M: 64, N: 64, K: 64 } as const;
  const product: MatmulShape = { layout: "mk,nk", ...f32 };
  const workgroup: VariantShape = {
    kind: "workgroup",
    tile: [4, 4],
    workgroup: [16, 16],
    vec: true,
  };
  const dot: VariantShape = {
    kind: "dot",
    tile: [2, 4],
    workgroup: [64, 1],
    vec: false,
  };
  equal(isUsable(gpu, workgroup, product), true);
  equal(isUsable({ limits: small }, workgroup, product), false);
  equal(isUsable(gpu, workgroup, { ...product, K: 62 }), false);
  equal(
    isUsable(gpu, { ...workgroup, vec: false }, { ...product, K: 62 }),
    true,
  );
  equal(isUsable(gpu, workgroup, { ...product, bType: "bf16", K: 60 }), false);
  equal(
    isUsable(gpu, workgroup, { ...product, layout: "mk,kn", N: 62 }),
    false,
  );
  const narrow = { ...workgroup, tile: [4, 2] } as const;
  equal(isUsable(gpu, narrow, product), true);
  equal(isUsable(gpu, narrow, { ...product, layout: "mk,kn" }), false);
  equal(isUsable(gpu, { ...workgroup, turns: true }, product), false);
  equal(isUsable(gpu, { ...workgroup, workgroup: [64, 64] }, product), false);
  equal(isUsable(gpu, dot, product), true);
  equal(isUsable(gpu, dot, { ...product, layout: "km,kn" }), false);
  equal(isUsable(gpu, { ...dot, workgroup: [48, 1] }, product), false);
  equal(isUsable(gpu, { ...dot, tile: [16, 32] }, product), false);
  const wide = { ...dot, vec: true };
  equal(isUsable(gpu, wide, product), true);
  equal(isUsable(gpu, wide, { ...product, K: 60 }), true);
  equal(isUsable(gpu, wide, { ...product, K: 62 }), false);
  equal(isUsable(gpu, wide, { ...product, bType: "bf16", K: 60 }), false);
});

Deno.test("matmul() takes packed operands where it chooses the tiles of graphics cards itself", async () => {
  using gpu = await testGpu({ isSoftware: false });
  using A = gpu.upload("A", "bf16", [1, 2], new Uint16Array([0x4000, 0x4040]));
  using B = gpu.upload("B", "bf16", [1, 2], new Uint16Array([0x3f80, 0xc080]));
  using C = gpu.tensor("C", "f32", [2, 2]);
  gpu.record("product", (rec) => matmul(rec, { layout: "km,kn", A, B, C }));
  deepEqual([...await gpu.read(C)], [2, -8, 3, -12]);
});
