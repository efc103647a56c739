import {
  type BindingSpec,
  defineKernel,
  isQuantized,
  type Kernel,
  type QuantizedDtype,
  type Recorder,
  type Tensor,
} from "../gpu/mod.ts";
import {
  checkRounds,
  isWeights,
  resolveVariant,
  suitVariant,
} from "./matmul_choice.ts";
import { splitRows, turnedPieces } from "./matmul_pieces.ts";
import { matmulWgsl } from "./matmul_wgsl.ts";
import { turn } from "./turn.ts";
import { turnBf16 } from "./turn_bf16.ts";

export {
  isUsable,
  isWeights,
  matmulKey,
  type MatmulShape,
  resolveVariant,
} from "./matmul_choice.ts";

/**
 * How the operands lie in memory, outermost dimension first. `mk,nk` is x·Wᵀ with
 * weights as checkpoints store them, `mk,kn` x·W, and `km,kn` xᵀ·y.
 */
export type MatmulLayout = "mk,nk" | "mk,kn" | "km,kn";

/** Per-element function of a product's result, with buffers of its own. */
export interface Epilogue {
  /** Part of the kernel's name. */
  readonly name: string;
  /**
   * `fn epilogue(value: f32, e: vec2<f32>, c: vec2<f32>, m: u32) -> f32`: an element of A·B, what `elements` and
   * `columns` hold there, and the row.
   */
  readonly wgsl: string;
  /** Up to two f32 bindings `[M, ldc]`, or C for what C holds, that are loaded with each element. */
  readonly elements?: readonly string[];
  /** Up to two f32 bindings `[ldc]` that are loaded with each column. */
  readonly columns?: readonly string[];
  /** All storage buffers that the function reads; their dimensions may be M, N, K and ldc (columns of C). */
  readonly bindings: Readonly<Record<string, BindingSpec>>;
  /** f32 uniforms that the function reads as `u.NAME`. */
  readonly uniforms: readonly string[];
  /**
   * `fn summand(value: f32, c: vec2<f32>) -> f32` of the function's result. With it the kernel also makes, for each row
   * and each tile of {@link tileWidth} columns, a word whose bits tell which results are not 0, and the sum of the summands.
   */
  readonly tiles?: string;
}

/** One member of the family of matrix products. */
export interface MatmulVariant {
  /** Where the tiles live: registers alone, workgroup memory, or lanes that share each sum. */
  readonly kind: "registers" | "workgroup" | "dot";
  readonly layout: MatmulLayout;
  /** Element type of A; bf16 stays packed. */
  readonly aType: "f32" | "bf16";
  /** Element type of B; C is f32. 16-bit types stay packed; f16, q8 and q4 need layout `mk,nk`, the latter two A in f32. */
  readonly bType: "f32" | "bf16" | "f16" | QuantizedDtype;
  /** Rows and columns of C that one invocation makes; the columns are a multiple of 4 for registers. */
  readonly tile: readonly [m: number, n: number];
  /** Invocations of a workgroup over n and over m. */
  readonly workgroup: readonly [x: number, y: number];
  /** Load 16 bytes at a time; needs row lengths that are multiples of 4 (16-bit types: 8). */
  readonly vec: boolean;
  /**
   * Transpose operands first, so that k is their outermost dimension: registers only, f32 or bf16, sizes that are multiples
   * of 4, or of 8 where an operand is packed. A model's weights are taken in pieces, so that little memory holds their copies.
   */
  readonly turns?: boolean;
  /** Store 16 bytes at a time, and load what the epilogue wants so: registers only, sizes of C that are multiples of 4. */
  readonly vecC: boolean;
  readonly epilogue: Epilogue | undefined;
}

/** A product to record. */
export interface MatmulCall {
  readonly layout: MatmulLayout;
  /** f32 or bf16, `[M, K]` or `[K, M]`. */
  readonly A: Tensor;
  /** `[N, K]` (f32, bf16, f16, q8 or q4; may span several buffers) or `[K, N]` (f32 or bf16). */
  readonly B: Tensor;
  /** f32 `[M, N]`. */
  readonly C: Tensor;
  readonly epilogue?: {
    readonly spec: Epilogue;
    readonly tensors: Readonly<Record<string, Tensor>>;
    readonly values?: Readonly<Record<string, number>>;
    /** Where tiles go, for an epilogue that makes them. */
    readonly tiles?: {
      /** u32 `[n_tiles, M]` */
      readonly masks: Tensor;
      /** f32 `[n_tiles, M]` */
      readonly sums: Tensor;
      /** First tile of this product. */
      readonly tile0: number;
    };
  };
  /**
   * Forces a variant; one whose tiles are known beforehand, or for tests and benchmarks. Windows that do not allow its
   * transposes or 16-byte loads do without: their tiles stay as wide, and their sums the same.
   */
  readonly variant?: VariantShape;
}

/** What of a variant may be chosen freely. */
export type VariantShape = Pick<
  MatmulVariant,
  "kind" | "tile" | "workgroup" | "vec" | "turns"
>;

/** Whether a variant can make the tiles of an epilogue. */
export function makesTiles(variant: VariantShape): boolean {
  return variant.kind === "registers" && tileWidth(variant) <= 32;
}

/** Columns of a tile of an epilogue's tiles; at most 32. */
export function tileWidth({ tile: [, TN] }: VariantShape): number {
  return TN;
}

type MatmulKernel = Kernel<
  Readonly<Record<string, BindingSpec>>,
  Readonly<Record<string, "u32" | "f32">>,
  never
>;
const kernels = new Map<string, MatmulKernel>();

/**
 * Records C = A·B in one of three layouts, with an optional function of each element.
 * A B of layout `nk` that spans several buffers is taken window by window.
 * @throws {RangeError} If sizes do not fit, naming the tensor, or a forced variant suits no product like this.
 * @throws {TypeError} If a type does not suit the layout.
 */
export function matmul(rec: Recorder, call: MatmulCall): void {
  const { A, B, C, layout } = call;
  checkTypes(call);
  const nColumns = B.shape[layout === "mk,nk" ? 0 : 1];
  if (C.shape[1] !== nColumns) {
    throw new RangeError(
      `Cannot multiply ${A} by ${B}: the result must have ${nColumns} columns: got ${C}`,
    );
  }
  const M = A.shape[layout === "km,kn" ? 1 : 0]!;
  const K = A.shape[layout === "km,kn" ? 0 : 1]!;
  const halves = splitRows(rec.gpu, call, { M, K });
  if (halves) return halves.forEach((half) => matmul(rec, half));
  let turnedA: Tensor | undefined;
  for (const window of B.windows()) {
    const N = window.tensor.shape[layout === "mk,nk" ? 0 : 1]!;
    const product = { layout, aType: A.dtype, bType: B.dtype, M, N, K };
    const shape = call.variant
      ? suitVariant(rec.gpu, call.variant, product)
      : resolveVariant(rec.gpu, product);
    checkRounds(rec.gpu, shape, product);
    const pieces = shape.turns && isWeights(product)
      ? turnedPieces(rec.gpu, window)
      : [window];
    if (shape.turns) turnedA ??= transposed(rec, "turned A", A);
    const operand = shape.turns ? turnedA! : A;
    for (const { tensor, start } of pieces) {
      multiply(rec, call, shape, { A: operand, B: tensor, start, M, K });
    }
  }
}

/** What {@link multiply} takes. */
interface Part {
  /** With k outermost if the variant turns its operands. */
  readonly A: Tensor;
  /** What one binding holds of B, as it lies. */
  readonly B: Tensor;
  /** Its first column of C. */
  readonly start: number;
  readonly M: number;
  readonly K: number;
}

/** Records the product with a part of B. */
function multiply(
  rec: Recorder,
  { C, layout, epilogue }: MatmulCall,
  shape: VariantShape,
  { A, B: part, start, M, K }: Part,
): void {
  const isTurned = shape.turns && layout === "mk,nk";
  const N = part.shape[layout === "mk,nk" ? 0 : 1]!;
  const B = isTurned ? transposed(rec, "turned B", part) : part;
  const variant: MatmulVariant = {
    ...shape,
    layout: shape.turns ? "km,kn" : layout,
    aType: A.dtype as MatmulVariant["aType"],
    bType: part.dtype as MatmulVariant["bType"],
    vecC: shape.kind === "registers" &&
      [N, start, C.shape[1]!].every((n) => n % 4 === 0),
    epilogue: epilogue?.spec,
  };
  const { tiles } = epilogue ?? {};
  matmulKernel(variant).run(rec, {
    A,
    B,
    C,
    ...epilogue?.tensors,
    ...(tiles && { tile_masks: tiles.masks, tile_sums: tiles.sums }),
  }, {
    c_col: start,
    M,
    N,
    K,
    ...(tiles && { tile0: tiles.tile0 }),
    ...epilogue?.values,
  });
}

/** Types that a layout takes, for errors. */
function checkTypes({ A, B, layout }: MatmulCall): void {
  const ofA = isQuantized(B.dtype) ? ["f32"] : ["f32", "bf16"];
  const ofB = [
    "f32",
    "bf16",
    ...(layout === "mk,nk" ? ["f16", "q8", "q4"] : []),
  ];
  if (ofA.includes(A.dtype) && ofB.includes(B.dtype)) return;
  const expected = [ofA, ofB].map((types) => types.join(" or ")).join(" by ");
  throw new TypeError(
    `Cannot multiply ${A} by ${B}: expected ${expected} in layout ${layout}: got ${A.dtype} by ${B.dtype}`,
  );
}

/**
 * Records the transpose of an f32 or packed bf16 matrix into memory for a moment, by its label.
 * @throws {RangeError} If a size is no multiple of 4, or of 8 for bf16.
 */
export function transposed(rec: Recorder, label: string, x: Tensor): Tensor {
  const [rows, columns] = x.shape as [number, number];
  const [kernel, step] = x.dtype === "bf16" ? [turnBf16, 8] : [turn, 4];
  if (rows % step !== 0 || columns % step !== 0) {
    throw new RangeError(
      `Cannot transpose ${x}: expected sizes that are multiples of ${step}: got ${rows} by ${columns}`,
    );
  }
  const y = rec.scratch(label, x.dtype, [columns, rows]);
  kernel.run(rec, { x, y });
  return y;
}

/** The kernel of a variant; made on first use. */
function matmulKernel(variant: MatmulVariant): MatmulKernel {
  const { kind, layout, aType, bType, tile, workgroup, vec, vecC, epilogue } =
    variant;
  const key = [
    kind,
    layout,
    aType,
    bType,
    tile,
    workgroup,
    vec,
    vecC,
    epilogue?.name,
  ].join(
    " ",
  );
  let kernel = kernels.get(key);
  if (!kernel) {
    kernel = defineMatmul(variant);
    kernels.set(key, kernel);
  }
  return kernel;
}

function defineMatmul(variant: MatmulVariant): MatmulKernel {
  const { kind, layout, aType, bType, epilogue } = variant;
  const { tile: [TM, TN], workgroup: [wx, wy] } = variant;
  const [a, b] = layout.split(",") as [string, string];
  const dims = (letters: string) => [...letters.toUpperCase()];
  const perX = kind === "dot" ? TN : TN * wx;
  const perY = kind === "dot" ? TM : TM * wy;
  return defineKernel({
    name: [
      "matmul",
      kind,
      a,
      b,
      ...(aType === "f32" ? [] : [aType]),
      bType,
      ...(epilogue ? [epilogue.name] : []),
    ].join("_"),
    wgsl: matmulWgsl(variant),
    bindings: {
      A: { access: "read", dtype: aType, shape: dims(a) },
      B: { access: "read", dtype: bType, shape: dims(b) },
      C: { access: "read_write", dtype: "f32", shape: ["M", "ldc"] },
      ...epilogue?.bindings,
      ...(epilogue?.tiles && {
        tile_masks: {
          access: "read_write",
          dtype: "u32",
          shape: ["n_tiles", "M"],
        },
        tile_sums: {
          access: "read_write",
          dtype: "f32",
          shape: ["n_tiles", "M"],
        },
      }),
    } as Readonly<Record<string, BindingSpec>>,
    uniforms: {
      M: "u32",
      N: "u32",
      K: "u32",
      ldc: "u32",
      c_col: "u32",
      ...(epilogue?.tiles && { tile0: "u32" }),
      ...Object.fromEntries(
        (epilogue?.uniforms ?? []).map((name) => [name, "f32" as const]),
      ),
    } as Readonly<Record<string, "u32" | "f32">>,
    workgroups: (
      dims,
    ) => [Math.ceil(dims.N! / perX), Math.ceil(dims.M! / perY), 1],
  });
}
