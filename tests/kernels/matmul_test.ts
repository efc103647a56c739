import assert from "node:assert/strict";
import type { Tensor } from "../../gpu/mod.ts";
import {
  type Epilogue,
  matmul,
  type MatmulCall,
  type MatmulLayout,
  tileWidth,
} from "../../kernels/matmul.ts";
import { assertClose, poison } from "../assert_close.ts";
import { testGpu } from "../gpu_for_tests.ts";
import {
  type BType,
  checkAll,
  checkVariant,
  drawCase,
  LAYOUTS,
  ODD_SIZES,
  type Size,
  type Variant,
  VEC_SIZES,
} from "./matmul_cases.ts";
import { seededTest } from "./run_kernel.ts";

/** The element types that B can have in a layout. */
const bTypes = (layout: MatmulLayout): readonly BType[] =>
  layout === "mk,nk" ? ["f32", "bf16", "f16"] : ["f32", "bf16"];

for (const layout of LAYOUTS) {
  for (const bType of bTypes(layout)) {
    seededTest(
      `matmul() matches float64 in registers, ${layout} with ${bType}`,
      async (draw) => {
        const m = layout === "km,kn" ? 4 : 3;
        const common = {
          kind: "registers",
          tile: [m, 4],
          workgroup: [4, 2],
        } as const;
        await checkVariant(
          draw,
          layout,
          bType,
          { ...common, vec: false },
          ODD_SIZES,
        );
        // Packed columns are loaded 8 at a time: see matmul_registers_test.ts.
        if (bType !== "f32" && layout !== "mk,nk") return;
        await checkVariant(
          draw,
          layout,
          bType,
          { ...common, vec: true },
          VEC_SIZES[layout],
        );
      },
    );

    seededTest(
      `matmul() matches float64 in workgroup memory, ${layout} with ${bType}`,
      async (draw) => {
        const variant = {
          kind: "workgroup",
          tile: [2, 3],
          workgroup: [8, 4],
          vec: false,
        } as const;
        await checkVariant(draw, layout, bType, variant, ODD_SIZES);
      },
    );
  }

  seededTest(
    `matmul() matches float64 with its largest tiles, ${layout}`,
    async (draw) => {
      const sizes = VEC_SIZES[layout].slice(-2);
      const registers = {
        kind: "registers",
        tile: [16, 16],
        workgroup: [8, 8],
        vec: true,
      } as const;
      await checkVariant(draw, layout, "f32", registers, sizes);
      const workgroup = {
        kind: "workgroup",
        tile: [4, 4],
        workgroup: [16, 16],
        vec: false,
      } as const;
      await checkVariant(draw, layout, "f32", workgroup, sizes);
    },
  );
}

seededTest(
  "matmul() tells which results of a tile are not 0, and sums them",
  async (draw) => {
    const gpu = await testGpu();
    using owned = new DisposableStack();
    const [M, N, K, tile0] = [13, 70, 24, 2];
    const spec: Epilogue = {
      name: "relu_tiles",
      bindings: { weights: { access: "read", dtype: "f32", shape: ["ldc"] } },
      columns: ["weights"],
      uniforms: [],
      wgsl:
        `fn epilogue(value: f32, e: vec2<f32>, c: vec2<f32>, m: u32) -> f32 { return max(value, 0.0); }`,
      tiles:
        `fn summand(value: f32, c: vec2<f32>) -> f32 { return value * c.x; }`,
    };
    const shapes: Variant[] = [
      { kind: "registers", tile: [4, 12], workgroup: [8, 1], vec: true },
      { kind: "registers", tile: [8, 32], workgroup: [2, 2], vec: false },
      {
        kind: "registers",
        tile: [4, 8],
        workgroup: [8, 1],
        vec: true,
        turns: true,
      },
    ];
    for (const variant of shapes) {
      const size: Size = variant.turns ? [12, 72, K] : [M, N, K];
      const { call, want, atol } = drawCase(
        draw,
        gpu,
        owned,
        "mk,nk",
        "f32",
        size,
        variant,
      );
      const [rows, columns] = size;
      const width = tileWidth(variant);
      const nTiles = Math.ceil(columns / width) + tile0 + 1;
      const weights = draw(columns);
      const masks = owned.use(gpu.tensor("masks", "u32", [nTiles, rows]));
      masks.write(new Uint32Array(nTiles * rows).fill(7));
      const sums = owned.use(
        gpu.floats("sums", [nTiles, rows], poison(nTiles * rows)),
      );
      gpu.record("product", (rec) =>
        matmul(rec, {
          ...call,
          epilogue: {
            spec,
            tensors: {
              weights: owned.use(gpu.floats("weights", [columns], weights)),
            },
            tiles: { masks, sums, tile0 },
          },
        }));
      const C = await gpu.read(call.C);
      const relu = want.map((value) => Math.max(value, 0));
      assertClose(C, relu, { atol, label: "C" });
      const gotMasks = await gpu.readInts(masks);
      const gotSums = await gpu.read(sums);
      for (let tile = 0; tile < nTiles; tile++) {
        for (let m = 0; m < rows; m++) {
          const at = tile * rows + m;
          const first = (tile - tile0) * width;
          if (first < 0 || first >= columns) {
            assert.deepEqual(
              [gotMasks[at], gotSums[at]],
              [7, NaN],
              "other tiles",
            );
            continue;
          }
          let [mask, sum] = [0, 0];
          for (let j = 0; j < width && first + j < columns; j++) {
            const value = C[m * columns + first + j]!;
            if (value !== 0) mask |= 1 << j;
            sum += value * weights[first + j]!;
          }
          assert.equal(
            gotMasks[at],
            mask >>> 0,
            `mask of row ${m}, tile ${tile}`,
          );
          assertClose([gotSums[at]!], [sum], { atol: 32 * atol, label: "sum" });
        }
      }
    }
  },
);

for (const aType of ["f32", "bf16"] as const) {
  for (const bType of bTypes("mk,nk")) {
    seededTest(
      `matmul() matches float64 with lanes that share sums, ${aType} by ${bType}`,
      async (draw) => {
        for (const tile of [[1, 4], [3, 2]] as const) {
          const variant = {
            kind: "dot",
            tile,
            workgroup: [64, 1],
            vec: false,
          } as const;
          await checkVariant(draw, "mk,nk", bType, variant, ODD_SIZES, aType);
        }
      },
    );
  }
}

seededTest(
  "matmul() matches float64 with the variant that it chooses itself",
  async (draw) => {
    const gpu = await testGpu();
    using owned = new DisposableStack();
    const sizes: Size[] = [[1, 131, 100], [1, 8, 8], [5, 40, 8]];
    const aTypes = ["f32", "bf16"] as const;
    await checkAll(
      gpu,
      LAYOUTS.flatMap((layout) =>
        bTypes(layout).flatMap((bType) =>
          aTypes.flatMap((aType) =>
            sizes.map((size) =>
              drawCase(draw, gpu, owned, layout, bType, size, undefined, aType)
            )
          )
        )
      ),
    );
  },
);

seededTest(
  "matmul() takes a B that spans buffers window by window",
  async (draw) => {
    using gpu = await testGpu({ maxBindingBytes: 64 * 13 * 4 });
    using owned = new DisposableStack();
    const dot = {
      kind: "dot",
      tile: [2, 2],
      workgroup: [32, 1],
      vec: false,
    } as const;
    const registers = {
      kind: "registers",
      tile: [2, 4],
      workgroup: [4, 2],
      vec: false,
    } as const;
    const workgroup = {
      kind: "workgroup",
      tile: [2, 2],
      workgroup: [4, 4],
      vec: false,
    } as const;
    const cases = [dot, registers, workgroup].flatMap((variant) =>
      (["f32", "bf16"] as const).map((bType) =>
        drawCase(draw, gpu, owned, "mk,nk", bType, [
          3,
          277,
          bType === "f32" ? 13 : 11,
        ], variant)
      )
    );
    for (const { call } of cases) assert.equal(call.B.isBindable, false);
    await checkAll(gpu, cases);
  },
);

const scaled: Epilogue = {
  name: "scaled",
  wgsl: `fn epilogue(value: f32, e: vec2<f32>, c: vec2<f32>, m: u32) -> f32 {
  return value * u.factor + c.x + e.x + f32(100u * m);
}`,
  elements: ["old"],
  columns: ["bias"],
  bindings: {
    bias: { access: "read", dtype: "f32", shape: ["ldc"] },
    old: { access: "read", dtype: "f32", shape: ["M", "ldc"] },
  },
  uniforms: ["factor"],
};

seededTest(
  "matmul() applies an epilogue once to each element, with its row and column",
  async (draw) => {
    // Windows of B, so that a column of C is not a row of the window.
    using gpu = await testGpu({ maxBindingBytes: 64 * 12 * 4 });
    using owned = new DisposableStack();
    const [M, N, K] = [5, 131, 12];
    const variants: Variant[] = [
      { kind: "registers", tile: [2, 4], workgroup: [4, 2], vec: true },
      { kind: "workgroup", tile: [2, 2], workgroup: [4, 4], vec: false },
      { kind: "dot", tile: [2, 2], workgroup: [32, 1], vec: false },
    ];
    for (const variant of variants) {
      const { call, want, atol } = drawCase(draw, gpu, owned, "mk,nk", "f32", [
        M,
        N,
        K,
      ], variant);
      const [bias, old] = [draw(N), draw(M * N)];
      const tensors: Record<string, Tensor> = {
        bias: owned.use(gpu.floats("bias", [N], bias)),
        old: owned.use(gpu.floats("old", [M, N], old)),
      };
      gpu.record("product", (rec) => {
        matmul(rec, {
          ...call,
          epilogue: { spec: scaled, tensors, values: { factor: -2 } },
        });
      });
      const expected = want.map((value, at) =>
        -2 * value + bias[at % N]! + old[at]! + 100 * Math.floor(at / N)
      );
      // And three more roundings of sums up to 500.
      assertClose(await gpu.read(call.C), expected, {
        atol: 2 * atol + 3 * 500 * 2 ** -24,
        label: `C (${variant.kind})`,
        shape: [M, N],
      });
    }
  },
);

seededTest(
  "matmul() writes no row past the window of C that it is given",
  async (draw) => {
    const gpu = await testGpu();
    using owned = new DisposableStack();
    const variants: Variant[] = [
      { kind: "registers", tile: [4, 4], workgroup: [4, 2], vec: false },
      { kind: "workgroup", tile: [2, 2], workgroup: [4, 4], vec: false },
      { kind: "dot", tile: [4, 4], workgroup: [32, 1], vec: false },
    ];
    for (const variant of variants) {
      const { call, want, atol } = drawCase(draw, gpu, owned, "mk,nk", "f32", [
        5,
        64,
        9,
      ], variant);
      const whole = owned.use(
        gpu.floats("whole", [20, 64], new Float32Array(1280).fill(7)),
      );
      gpu.record(
        "product",
        (rec) => matmul(rec, { ...call, C: whole.rows(8, 13) }),
      );
      const got = await gpu.read(whole);
      const label = `C (${variant.kind})`;
      assertClose(got.subarray(512, 832), want, {
        atol,
        label,
        shape: [5, 64],
      });
      const others = [...got.subarray(0, 512), ...got.subarray(832)];
      assertClose(
        others,
        others.map(() => 7),
        { label: "rows around it" },
      );
    }
  },
);

Deno.test("matmul() refuses tensors whose sizes or types do not fit", async () => {
  const gpu = await testGpu();
  using owned = new DisposableStack();
  const make = (label: string, dtype: BType, shape: number[]) =>
    owned.use(gpu.tensor(label, dtype, shape));
  const refuses = (call: MatmulCall, message: RegExp) =>
    assert.throws(() => gpu.record("product", (rec) => matmul(rec, call)), {
      name: "RangeError",
      message,
    });
  const A = make("A", "f32", [2, 3]);
  const B = make("B", "f32", [5, 3]);
  const C = make("C", "f32", [2, 5]);
  const layout = "mk,nk";
  refuses(
    { layout, A, B: make("B", "f32", [5, 4]), C },
    /"matmul_.*": binding "B" must be f32\[N=5.*, K=3.*\]: got B: f32\[5, 4\]/,
  );
  refuses(
    { layout, A, B, C: make("C", "f32", [3, 5]) },
    /binding "C" must be f32\[M=2/,
  );
  const narrow = make("C", "f32", [2, 4]);
  refuses(
    { layout, A, B, C: narrow },
    /^Cannot multiply A: f32\[2, 3\] by B: f32\[5, 3\]: the result must have 5 columns: got C: f32\[2, 4\]$/,
  );
  const ids = owned.use(gpu.tensor("ids", "u32", [5, 3]));
  const half = make("half", "f16", [3, 5]);
  const packed = "f32 or bf16 by f32 or bf16";
  for (
    const [layout, A1, B1, expected] of [
      ["mk,nk", A, ids, `${packed} or f16 or q8 or q4`],
      ["mk,nk", make("A", "f16", [2, 3]), B, `${packed} or f16 or q8 or q4`],
      ["mk,kn", A, half, packed],
      ["km,kn", make("A", "f32", [3, 2]), half, packed],
    ] as const
  ) {
    const call = { layout, A: A1, B: B1, C };
    assert.throws(() => gpu.record("product", (rec) => matmul(rec, call)), {
      name: "TypeError",
      message:
        `Cannot multiply ${A1} by ${B1}: expected ${expected} in layout ${layout}: got ${A1.dtype} by ${B1.dtype}`,
    });
  }
});
