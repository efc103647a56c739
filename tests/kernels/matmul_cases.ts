/**
 * Products for the tests of `matmul`, with what they should be.
 * @module
 */
import { bf16ToF32, f16ToF32, f32ToBf16 } from "../../core/dtype.ts";
import { type Gpu, isQuantized, type QuantizedDtype } from "../../gpu/mod.ts";
import {
  matmul,
  type MatmulCall,
  type MatmulLayout,
} from "../../kernels/matmul.ts";
import { assertClose, poison } from "../assert_close.ts";
import { testGpu } from "../gpu_for_tests.ts";
import { matmulReference } from "../reference/matmul_reference.ts";
import { quantizeReference } from "../reference/quantize_reference.ts";
import type { Draw } from "./run_kernel.ts";

/** Sizes of a product. */
export type Size = readonly [M: number, N: number, K: number];
/** Element types of B. */
export type BType = "f32" | "bf16" | "f16" | QuantizedDtype;
/** A variant that a test forces. */
export type Variant = NonNullable<MatmulCall["variant"]>;

/** All layouts. */
export const LAYOUTS: readonly MatmulLayout[] = ["mk,nk", "mk,kn", "km,kn"];
/** No size is a multiple of a tile's. */
export const ODD_SIZES: readonly Size[] = [
  [1, 5, 7],
  [1, 131, 149],
  [3, 131, 100],
  [13, 5, 149],
  [33, 131, 7],
];
/** Row lengths for 16-byte loads of either operand, other sizes odd. */
export const VEC_SIZES: Readonly<Record<MatmulLayout, readonly Size[]>> = {
  "mk,nk": [[1, 5, 8], [3, 131, 104], [13, 5, 152], [33, 131, 8]],
  "mk,kn": [[1, 4, 8], [3, 132, 100], [33, 132, 12]],
  "km,kn": [[4, 4, 7], [12, 132, 149], [36, 132, 7]],
};

/** A product with its operands on the GPU, and what it should be. */
export interface Case {
  readonly call: MatmulCall;
  readonly want: Float64Array;
  readonly atol: number;
  readonly label: string;
}

/** An operand as it is stored, and the numbers that this means. */
function storeAs(bType: BType, values: Float32Array<ArrayBuffer>, K: number) {
  if (isQuantized(bType)) return quantizeReference(bType, values, K);
  if (bType === "f32") return { stored: values, rounded: values };
  if (bType === "bf16") {
    const stored = f32ToBf16(values);
    return { stored, rounded: bf16ToF32(stored) };
  }
  const stored = new Uint16Array(Float16Array.from(values).buffer);
  return { stored, rounded: f16ToF32(stored) };
}

/** Draws operands; C holds NaN. */
export function drawCase(
  draw: Draw,
  gpu: Gpu,
  owned: DisposableStack,
  layout: MatmulLayout,
  bType: BType,
  size: Size,
  variant?: Variant,
  aType: "f32" | "bf16" = "f32",
): Case {
  const [M, N, K] = size;
  const a = storeAs(aType, draw(M * K), K);
  const b = storeAs(bType, draw(N * K), K);
  const { C: want, largestSum } = matmulReference(
    layout,
    a.rounded,
    b.rounded,
    size,
  );
  const upload = (
    name: string,
    dtype: BType,
    shape: number[],
    values: ArrayBufferView<ArrayBuffer>,
  ) => owned.use(gpu.upload(name, dtype, shape, values));
  const call: MatmulCall = {
    layout,
    A: upload("A", aType, layout.startsWith("mk") ? [M, K] : [K, M], a.stored),
    B: upload("B", bType, layout.endsWith("nk") ? [N, K] : [K, N], b.stored),
    C: upload("C", "f32", [M, N], poison(M * N)),
    ...(variant && { variant }),
  };
  // K products are added one after the other, each sum rounded.
  const atol = (K + 1) * 2 ** -24 * largestSum;
  return {
    call,
    want,
    atol,
    label: `C (${layout}, ${aType}, ${bType}, ${size})`,
  };
}

/** Runs the products in one submit and compares each. */
export async function checkAll(
  gpu: Gpu,
  cases: readonly Case[],
): Promise<void> {
  gpu.record("products", (rec) => {
    for (const { call } of cases) matmul(rec, call);
  });
  await Promise.all(cases.map(async ({ call, want, atol, label }) => {
    assertClose(await gpu.read(call.C), want, {
      atol,
      label,
      shape: call.C.shape,
    });
  }));
}

/** Checks one variant on all sizes. */
export async function checkVariant(
  draw: Draw,
  layout: MatmulLayout,
  bType: BType,
  variant: Variant,
  sizes: readonly Size[],
  aType: "f32" | "bf16" = "f32",
): Promise<void> {
  const gpu = await testGpu();
  using owned = new DisposableStack();
  const cases = sizes.map((size) =>
    drawCase(draw, gpu, owned, layout, bType, size, variant, aType)
  );
  await checkAll(gpu, cases);
}
