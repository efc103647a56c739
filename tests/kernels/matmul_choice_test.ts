import { deepEqual, equal, ok, throws } from "node:assert/strict";
import {
  isUsable,
  matmul,
  type MatmulShape,
  resolveVariant,
  type VariantShape,
} from "../../kernels/matmul.ts";
import { suitVariant } from "../../kernels/matmul_choice.ts";
import type { Gpu } from "../../gpu/mod.ts";
import { testGpu } from "../gpu_for_tests.ts";
import { LAYOUTS } from "./matmul_cases.ts";

const TALL: VariantShape = {
  kind: "registers",
  tile: [8, 8],
  workgroup: [8, 1],
  vec: true,
};
const TURNING: VariantShape = { ...TALL, turns: true };

/** A product of 64 by 64 by 64 that differs in some of its sizes and types. */
function product(
  layout: MatmulShape["layout"],
  aType: MatmulShape["aType"],
  bType: MatmulShape["bType"],
  sizes: Partial<MatmulShape> = {},
): MatmulShape {
  return { layout, aType, bType, M: 64, N: 64, K: 64, ...sizes };
}

for (const isSoftware of [true, false]) {
  Deno.test(
    `resolveVariant() chooses what every product allows (${
      isSoftware ? "software" : "graphics card"
    })`,
    async () => {
      using gpu = await testGpu({ isSoftware });
      const sizes = [1, 2, 4, 5, 8, 12, 13, 60, 64, 96, 100, 104, 1024, 1025];
      for (const layout of LAYOUTS) {
        for (const aType of ["f32", "bf16"] as const) {
          for (const bType of ["f32", "bf16", "f16"] as const) {
            if (bType === "f16" && layout !== "mk,nk") continue;
            for (const M of sizes) {
              for (const N of sizes) {
                for (const K of sizes) {
                  const shape: MatmulShape = { layout, aType, bType, M, N, K };
                  const variant = resolveVariant(gpu, shape);
                  ok(
                    isUsable(gpu, variant, shape),
                    JSON.stringify({ shape, variant }),
                  );
                }
              }
            }
          }
        }
      }
    },
  );
}

Deno.test("resolveVariant() takes taller tiles for larger products, and turns a model's packed weights for many rows", async () => {
  using gpu = await testGpu({ isSoftware: true });
  const of = (shape: MatmulShape) => resolveVariant(gpu, shape);
  const size = { M: 128, N: 128, K: 128 };
  const large = { M: 1024, N: 2048, K: 256 };
  deepEqual(of(product("mk,nk", "f32", "f32", size)).tile, [24, 16]);
  deepEqual(of(product("mk,nk", "f32", "f32", large)), {
    kind: "registers",
    tile: [32, 16],
    workgroup: [8, 1],
    vec: true,
    turns: true,
  });
  equal(of(product("mk,kn", "bf16", "bf16", large)).turns, true);
  equal(of(product("km,kn", "bf16", "f32", large)).turns, false);
  equal(of(product("mk,nk", "f32", "bf16", large)).turns, true);
  equal(
    of(product("mk,nk", "f32", "bf16", { ...large, M: 63 })).turns,
    undefined,
  );
});

Deno.test("resolveVariant() lets lanes share long rows where few rows of A meet them", async () => {
  using software = await testGpu({ isSoftware: true });
  using card = await testGpu({ isSoftware: false });
  const of = (gpu: Gpu, M: number, sizes: Partial<MatmulShape> = {}) => {
    const weights = { M, N: 512, K: 2048, ...sizes };
    const { kind, tile, workgroup, vec } = resolveVariant(
      gpu,
      product("mk,nk", "f32", sizes.bType ?? "bf16", weights),
    );
    return [kind, ...tile, workgroup[0], vec];
  };
  deepEqual(of(software, 1), ["dot", 1, 16, 8, true]);
  deepEqual(of(software, 3), ["dot", 4, 16, 8, true]);
  deepEqual(of(software, 8), ["dot", 8, 24, 8, true]);
  deepEqual(of(software, 40), ["dot", 8, 24, 8, true]);
  deepEqual(of(software, 8, { bType: "f32" }), ["dot", 8, 24, 8, true]);
  equal(of(software, 40, { bType: "f32" })[0], "registers");
  deepEqual(of(software, 1, { K: 192 }), ["registers", 1, 16, 8, true]);
  deepEqual(of(software, 8, { K: 2049 }), ["registers", 8, 16, 8, false]);
  deepEqual(of(card, 1), ["dot", 1, 4, 64, true]);
  deepEqual(of(card, 2, { K: 2049 }), ["dot", 2, 4, 64, false]);
  deepEqual(of(card, 7), ["dot", 8, 8, 64, true]);
  equal(of(card, 9)[0], "workgroup");
});

Deno.test("isUsable() refuses registers that loads or transposes do not suit", async () => {
  const gpu = await testGpu();
  const isFit = (variant: VariantShape, shape: MatmulShape) =>
    isUsable(gpu, variant, shape);
  // Packed operands are loaded and transposed 8 at a time, others 4.
  equal(isFit(TURNING, product("mk,nk", "bf16", "f32")), true);
  equal(isFit(TURNING, product("mk,nk", "bf16", "f32", { M: 68 })), false);
  equal(isFit(TURNING, product("mk,nk", "f32", "f32", { M: 68 })), true);
  equal(isFit(TURNING, product("mk,nk", "f32", "bf16", { N: 68 })), false);
  equal(isFit(TURNING, product("mk,kn", "f32", "bf16", { N: 68 })), false);
  equal(isFit(TURNING, product("mk,kn", "f32", "bf16", { M: 68 })), true);
  equal(isFit(TURNING, product("mk,kn", "f32", "f32", { K: 62 })), false);
  const wide = { ...TURNING, tile: [8, 12] } as const;
  equal(isFit(wide, product("mk,nk", "bf16", "f32")), true);
  equal(isFit(wide, product("mk,nk", "f32", "bf16")), false);
  equal(isFit(TURNING, product("mk,nk", "f32", "f16")), false);
  equal(isFit(TURNING, product("mk,nk", "f32", "f32", { K: 2 ** 16 })), false);
  equal(isFit(TURNING, product("km,kn", "f32", "f32")), false);
  equal(
    isFit({ ...TURNING, vec: false }, product("mk,nk", "f32", "f32")),
    false,
  );
  equal(isFit(TALL, product("mk,nk", "bf16", "f32", { K: 68 })), false);
  equal(isFit(TALL, product("mk,kn", "bf16", "f32", { M: 5, N: 68 })), true);
  equal(isFit(TALL, product("km,kn", "bf16", "f32", { M: 68 })), false);
  const odd = product("mk,nk", "bf16", "bf16", { M: 5, N: 7, K: 9 });
  equal(isFit(TALL, odd), false);
  equal(isFit({ ...TALL, vec: false }, odd), true);
  equal(
    isFit({ ...TALL, tile: [64, 32] }, product("mk,nk", "f32", "f32")),
    false,
  );
});

Deno.test("suitVariant() does without transposes and 16-byte loads where sizes are odd, and keeps the tile's width", async () => {
  const gpu = await testGpu();
  const suited = (shape: MatmulShape, variant = TURNING) =>
    suitVariant(gpu, variant, shape);
  const whole = product("mk,nk", "f32", "f32");
  equal(suited(whole), TURNING);
  deepEqual(suited({ ...whole, N: 61 }), { ...TURNING, turns: false });
  const tall = { ...TURNING, tile: [32, 16] } as const;
  const low = { ...tall, tile: [8, 16], turns: false } as const;
  deepEqual(suited({ ...whole, N: 61 }, tall), low);
  const inOrder = suited(product("km,kn", "f32", "f32"), tall);
  deepEqual(inOrder, { ...tall, turns: false }, "k is outermost already");
  const plain = { ...TURNING, turns: false, vec: false };
  deepEqual(suited({ ...whole, K: 61 }), plain);
  deepEqual(suited(product("km,kn", "f32", "f32")), {
    ...TURNING,
    turns: false,
  });
  throws(() => suited(whole, { ...TURNING, tile: [8, 6] }), {
    name: "RangeError",
    message:
      "Cannot multiply by registers of tile 8x6 in workgroups of 8x1: expected a variant that matmul mk,nk f32 f32 64x64x64 allows on this adapter",
  });
});

Deno.test("matmul() sums over more products than a software driver has rounds, or says that it cannot", async () => {
  const gpu = await testGpu();
  const ones = (label: string, shape: [number, number]) =>
    gpu.floats(label, shape, new Float32Array(shape[0] * shape[1]).fill(1));
  for (
    const [layout, M, K, isDone] of [
      ["mk,nk", 96, 70_000, true],
      ["mk,kn", 96, 70_000, true],
      ["km,kn", 16, 65_535, true],
      ["km,kn", 16, 65_536, !gpu.isSoftware],
      ["mk,kn", 3, 65_537, !gpu.isSoftware],
    ] as const
  ) {
    const N = 16;
    using A = ones("A", layout === "km,kn" ? [K, M] : [M, K]);
    using B = ones("B", layout === "mk,nk" ? [N, K] : [K, N]);
    using C = gpu.tensor("C", "f32", [M, N]);
    const run = () =>
      gpu.record("long", (rec) => matmul(rec, { layout, A, B, C }));
    if (isDone) {
      run();
      const got = await gpu.read(C);
      ok(got.every((value) => value === K), `${layout}: ${got[0]}`);
    } else {
      throws(run, /^RangeError: Cannot sum over \d+ products: expected/);
    }
  }
});
