import assert from "node:assert/strict";
import {
  isUsable,
  matmul,
  type MatmulLayout,
  transposed,
} from "../../kernels/matmul.ts";
import { randomNormal } from "../assert_close.ts";
import { testGpu } from "../gpu_for_tests.ts";
import {
  type Case,
  checkAll,
  drawCase,
  LAYOUTS,
  type Size,
  type Variant,
} from "./matmul_cases.ts";
import { seededTest } from "./run_kernel.ts";

/** Sizes for 16-byte loads of packed operands. */
const PACKED_SIZES: Readonly<Record<MatmulLayout, readonly Size[]>> = {
  "mk,nk": [[3, 5, 8], [13, 131, 152], [40, 7, 24]],
  "mk,kn": [[3, 8, 8], [13, 136, 152], [40, 8, 24]],
  "km,kn": [[8, 8, 7], [16, 136, 149], [40, 136, 7]],
};

for (const layout of LAYOUTS) {
  for (
    const types of [["bf16", "f32"], ["f32", "bf16"], ["bf16", "bf16"]] as const
  ) {
    const [aType, bType] = types;
    seededTest(
      `matmul() matches float64 in registers, ${layout} with ${aType} by ${bType}`,
      async (draw) => {
        const gpu = await testGpu();
        using owned = new DisposableStack();
        const shape = {
          kind: "registers",
          tile: [8, 8],
          workgroup: [4, 2],
        } as const;
        const make = (sizes: readonly Size[], vec: boolean): Case[] =>
          sizes.map((size) => {
            const variant = { ...shape, vec };
            const [M, N, K] = size;
            assert.ok(
              isUsable(gpu, variant, { layout, aType, bType, M, N, K }),
            );
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
        await checkAll(gpu, [
          ...make(PACKED_SIZES[layout], true),
          ...make([[3, 5, 7], [13, 131, 20]], false),
        ]);
      },
    );
  }
}

for (const layout of ["mk,nk", "mk,kn"] as const) {
  for (
    const types of [
      ["f32", "f32"],
      ["bf16", "f32"],
      ["f32", "bf16"],
      ["bf16", "bf16"],
    ] as const
  ) {
    const [aType, bType] = types;
    seededTest(
      `matmul() matches float64 when it transposes operands first, ${layout} with ${aType} by ${bType}`,
      async (draw) => {
        const gpu = await testGpu();
        using owned = new DisposableStack();
        const isPacked = aType === "bf16" || bType === "bf16";
        const variant = {
          kind: "registers",
          tile: [8, isPacked ? 8 : 12],
          workgroup: [8, 1],
          vec: true,
          turns: true,
        } as const;
        // A larger product between smaller ones: the memory for a moment grows.
        const sizes: readonly Size[] = isPacked
          ? [[8, 8, 16], [40, 136, 136], [16, 24, 8]]
          : [[4, 8, 12], [36, 132, 100], [12, 20, 8]];
        await checkAll(
          gpu,
          sizes.map((size) => {
            const [M, N, K] = size;
            assert.ok(
              isUsable(gpu, variant, { layout, aType, bType, M, N, K }),
            );
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
          }),
        );
      },
    );
  }
}

Deno.test("matmul() gives the same bits with every tile in registers, each time", async () => {
  const gpu = await testGpu();
  using owned = new DisposableStack();
  const [M, N, K] = [40, 72, 152];
  const floats = (label: string, shape: number[]) =>
    owned.use(gpu.floats(label, shape, randomNormal(shape[0]! * shape[1]!, 5)));
  const [A, B] = [floats("A", [M, K]), floats("B", [N, K])];
  const C = owned.use(gpu.tensor("C", "f32", [M, N]));
  const common = { kind: "registers", workgroup: [8, 1], vec: true } as const;
  const variants: Variant[] = [
    { ...common, tile: [8, 16] },
    { ...common, tile: [24, 16], turns: true },
    { ...common, tile: [8, 8], turns: true },
  ];
  let bits: Uint8Array | undefined;
  for (const variant of [...variants, ...variants]) {
    gpu.record("product", (rec) => {
      rec.clear(C);
      matmul(rec, { layout: "mk,nk", A, B, C, variant });
    });
    const got = await gpu.readBytes(C);
    assert.deepEqual(got, bits ?? got, JSON.stringify(variant));
    bits = got;
  }
});

for (const bType of ["f32", "bf16"] as const) {
  seededTest(
    `matmul() takes a last window of odd size with a forced variant that can not turn it, ${bType}`,
    async (draw) => {
      using gpu = await testGpu({ maxBindingBytes: 128 * 16 * 4 });
      using owned = new DisposableStack();
      const variant = {
        kind: "registers",
        tile: [8, 16],
        workgroup: [8, 1],
        vec: true,
        turns: true,
      } as const;
      const size = [8, 233, bType === "f32" ? 16 : 32] as const;
      const one = drawCase(draw, gpu, owned, "mk,nk", bType, size, variant);
      const windows = [...one.call.B.windows()];
      assert.equal(windows.length, 2);
      assert.equal(windows[1]!.tensor.nRows % 2, 1);
      await checkAll(gpu, [one]);
    },
  );
}

Deno.test("transposed() refuses sizes that its groups would cut off", async () => {
  const gpu = await testGpu();
  using f32 = gpu.tensor("x", "f32", [8, 6]);
  using bf16 = gpu.tensor("x", "bf16", [12, 8]);
  for (
    const [x, message] of [
      [f32, /^Cannot transpose x: f32\[8, 6\]: expected .* of 4: got 8 by 6$/],
      [
        bf16,
        /^Cannot transpose x: bf16\[12, 8\]: expected .* of 8: got 12 by 8$/,
      ],
    ] as const
  ) {
    assert.throws(
      () => gpu.record("turn", (rec) => void transposed(rec, "turned", x)),
      { name: "RangeError", message },
    );
  }
});
