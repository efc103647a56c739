import { deepEqual, equal, ok } from "node:assert/strict";
import { type Gpu, Tensor } from "../../gpu/mod.ts";
import { matmul } from "../../kernels/matmul.ts";
import { splitRows, turnedPieces } from "../../kernels/matmul_pieces.ts";
import { candidatesOf } from "../../kernels/matmul_tuning.ts";
import { assertRelativeError, randomNormal } from "../assert_close.ts";
import { testGpu } from "../gpu_for_tests.ts";
import {
  type BType,
  type Case,
  checkAll,
  drawCase,
  type Variant,
} from "./matmul_cases.ts";
import { seededTest } from "./run_kernel.ts";

const dot = (m: number, n: number, lanes = 8): Variant => ({
  kind: "dot",
  tile: [m, n],
  workgroup: [lanes, 1],
  vec: true,
});

/** Checks products against float64 element by element, and the error of each as a whole. */
async function checkClosely(gpu: Gpu, cases: readonly Case[]): Promise<void> {
  await checkAll(gpu, cases);
  for (const { call: { C }, want, label } of cases) {
    assertRelativeError(await gpu.read(C), want, 1e-5, label);
  }
}

for (const aType of ["f32", "bf16"] as const) {
  for (const bType of ["f32", "bf16", "f16"] as const) {
    seededTest(
      `matmul() matches float64 with lanes that share sums, 16-byte loads, ${aType} by ${bType}`,
      async (draw) => {
        const gpu = await testGpu();
        using owned = new DisposableStack();
        const variants = [dot(1, 16), dot(4, 8), dot(3, 5, 64), dot(2, 4, 4)];
        const cases = variants.flatMap((variant) =>
          ([[1, 5, 8], [3, 131, 104], [9, 37, 1032]] as const).map((size) =>
            drawCase(draw, gpu, owned, "mk,nk", bType, size, variant, aType)
          )
        );
        await checkClosely(gpu, cases);
      },
    );
  }
}

for (const isSoftware of [true, false]) {
  for (const bType of ["bf16", "f32"] as const) {
    seededTest(
      `matmul() matches float64 with 1 to 9 rows against long rows, ${bType} (${
        isSoftware ? "software" : "graphics card"
      })`,
      async (draw) => {
        // Windows of an odd number of rows in the end.
        const K = 1032;
        const bytes = bType === "f32" ? 4 : 2;
        using gpu = await testGpu({
          isSoftware,
          maxBindingBytes: 64 * K * bytes,
        });
        using owned = new DisposableStack();
        const cases = Array.from({ length: 9 }, (_, i) => {
          const size = [i + 1, 101, K] as const;
          return drawCase(draw, gpu, owned, "mk,nk", bType, size);
        });
        for (const { call: { B } } of cases) equal(B.isBindable, false);
        await checkClosely(gpu, cases);
      },
    );
  }
}

seededTest(
  "matmul() gives a row the same bits whatever rows it is multiplied with, up to 8",
  async (draw) => {
    using gpu = await testGpu({ isSoftware: true });
    using owned = new DisposableStack();
    const [N, K] = [40, 1032];
    const rows = draw(8 * K);
    const B = owned.use(gpu.floats("B", [N, K], draw(N * K)));
    const bits = await Promise.all([1, 2, 3, 5, 8].map(async (M) => {
      const A = owned.use(gpu.floats("A", [M, K], rows.slice(0, M * K)));
      const C = owned.use(gpu.tensor("C", "f32", [M, N]));
      gpu.record("product", (rec) => matmul(rec, { layout: "mk,nk", A, B, C }));
      return (await gpu.read(C)).slice(0, N);
    }));
    for (const row of bits) deepEqual(row, bits[0]);
  },
);

seededTest(
  "every candidate of tuneMatmuls() for few rows matches float64",
  async (draw) => {
    for (const isSoftware of [true, false]) {
      using gpu = await testGpu({ isSoftware });
      using owned = new DisposableStack();
      const cases = [1, 3, 8].flatMap((M) => {
        const size = [M, 67, 104] as const;
        const [, N, K] = size;
        const candidates = candidatesOf(gpu, {
          layout: "mk,nk",
          aType: "f32",
          bType: "bf16",
          M,
          N,
          K,
        });
        const isSmall = ({ kind, tile }: Variant): boolean =>
          kind === "dot" || tile[0] * tile[1] <= 128;
        ok(candidates.filter(({ kind }) => kind === "dot").length >= 3);
        return candidates.filter(isSmall).map((variant) =>
          drawCase(draw, gpu, owned, "mk,nk", "bf16", size, variant)
        );
      });
      await checkAll(gpu, cases);
    }
  },
);

/** A model's weights, for products of `M` rows. */
function weights(gpu: Gpu, M: number, [N, K]: readonly [number, number]) {
  const make = (label: string, dtype: BType, shape: number[]) =>
    gpu.tensor(label, dtype, shape);
  return {
    layout: "mk,nk",
    A: make("A", "f32", [M, K]),
    B: make("B", "bf16", [N, K]),
    C: make("C", "f32", [M, N]),
  } as const;
}

seededTest(
  "matmul() leaves the last rows to a product of their own, so that it can transpose a model's weights",
  async (draw) => {
    using gpu = await testGpu({ isSoftware: true });
    using owned = new DisposableStack();
    const cases = [131, 129, 132].map((M) =>
      drawCase(draw, gpu, owned, "mk,nk", "bf16", [M, 128, 64])
    );
    const [first] = cases as [Case, ...Case[]];
    const halves = splitRows(gpu, first.call, { M: 131, K: 64 });
    deepEqual(halves?.map(({ A, C }) => [A.nRows, C.nRows]), [
      [128, 128],
      [3, 3],
    ]);
    await checkClosely(gpu, cases);
  },
);

Deno.test("splitRows() leaves products alone that cannot be turned, or need no split", async () => {
  using gpu = await testGpu({ isSoftware: true });
  const isSplit = (M: number, [N, K]: readonly [number, number]): boolean => {
    const call = weights(gpu, M, [N, K]);
    using _A = call.A;
    using _B = call.B;
    using _C = call.C;
    return splitRows(gpu, call, { M, K }) !== undefined;
  };
  equal(isSplit(131, [128, 64]), true);
  equal(isSplit(132, [128, 64]), false, "a multiple of 4");
  equal(isSplit(63, [128, 64]), false, "few rows");
  equal(isSplit(3, [128, 64]), false, "nothing would be left");
  equal(isSplit(131, [128, 68]), false, "weights that are not transposed");
  equal(isSplit(129, [104, 72]), true, "rows that start at 256 bytes");
  equal(isSplit(133, [104, 72]), false, "rows that do not");
});

Deno.test("turnedPieces() takes windows apart where a copy would be large, less so on graphics cards", async () => {
  const gpu = await testGpu();
  using B = gpu.tensor("B", "bf16", [600, 8192]);
  const pieces = (isSoftware: boolean) =>
    [...turnedPieces({ isSoftware }, { tensor: B, start: 10, end: 610 })]
      .map(({ tensor, start, end }) => [tensor.nRows, start, end]);
  deepEqual(pieces(false), [[600, 10, 610]]);
  deepEqual(pieces(true), [[256, 10, 266], [256, 266, 522], [88, 522, 610]]);
});

Deno.test("matmul() transposes large weights piece by piece, to the same bits", async () => {
  const gpu = await testGpu();
  const [M, N, K] = [8, 384, 2 ** 15];
  const call = weights(gpu, M, [N, K]);
  using A = call.A;
  using B = call.B;
  using C = call.C;
  const block = new Uint16Array(randomNormal(2 ** 20, 3).buffer)
    .map((bits) => (bits & 0x80ff) | 0x3f00);
  for (let row = 0; row < N; row += 64) B.write(block, row);
  A.write(randomNormal(M * K, 4));
  const run = async (turns: boolean) => {
    gpu.record("product", (rec) => {
      rec.clear(C);
      const shape = { kind: "registers", tile: [8, 8] } as const;
      const variant = {
        ...shape,
        workgroup: [8, 1],
        vec: true,
        turns,
      } as const;
      matmul(rec, { ...call, variant });
    });
    return await gpu.read(C);
  };
  const straight = await run(false);
  ok(straight.every((value) => Number.isFinite(value) && value !== 0));
  deepEqual(await run(true), straight);
  const copy = gpu.scratch.get("turned B");
  ok(copy instanceof Tensor && copy.byteLength <= 2 ** 23, `${copy}`);
});
