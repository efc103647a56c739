import {
  type BindingSpec,
  defineKernel,
  type Kernel,
  type Recorder,
  type Tensor,
} from "../gpu/mod.ts";
import { matmulWgsl } from "./matmul_wgsl.ts";

/**
 * How the operands lie in memory, outermost dimension first. `mk,nk` is x·Wᵀ with
 * weights as checkpoints store them, `mk,kn` x·W, and `km,kn` xᵀ·y.
 */
export type MatmulLayout = "mk,nk" | "mk,kn" | "km,kn";

/** Per-element function of a product's result, with buffers of its own. */
export interface Epilogue {
  /** Part of the kernel's name. */
  readonly name: string;
  /** `fn epilogue(value: f32, m: u32, col: u32, at: u32) -> f32`; `col` is the column of C, `at` the element's index in it. */
  readonly wgsl: string;
  /** Storage buffers that the function reads; its dimensions may be M, N, K and ldc (columns of C). */
  readonly bindings: Readonly<Record<string, BindingSpec>>;
  /** f32 uniforms that the function reads as `u.NAME`. */
  readonly uniforms: readonly string[];
}

/** One member of the family of matrix products. */
export interface MatmulVariant {
  /** Where the tiles live: registers alone, workgroup memory, or lanes that share each sum. */
  readonly kind: "registers" | "workgroup" | "dot";
  readonly layout: MatmulLayout;
  /** Element type of B; A and C are f32. 16-bit types stay packed; they need layout `mk,nk`. */
  readonly bType: "f32" | "bf16" | "f16";
  /** Rows and columns of C that one invocation makes; the columns are a multiple of 4 for registers. */
  readonly tile: readonly [m: number, n: number];
  /** Invocations of a workgroup over n and over m. */
  readonly workgroup: readonly [x: number, y: number];
  /** Load 16 bytes at a time; registers only, needs row lengths that are multiples of 4 (16-bit B: 8). */
  readonly vec: boolean;
  readonly epilogue: Epilogue | undefined;
}

/** A product to record. */
export interface MatmulCall {
  readonly layout: MatmulLayout;
  /** f32, `[M, K]` or `[K, M]`. */
  readonly A: Tensor;
  /** `[N, K]` (f32, bf16 or f16; may span several buffers) or f32 `[K, N]`. */
  readonly B: Tensor;
  /** f32 `[M, N]`. */
  readonly C: Tensor;
  readonly epilogue?: {
    readonly spec: Epilogue;
    readonly tensors: Readonly<Record<string, Tensor>>;
    readonly values?: Readonly<Record<string, number>>;
  };
  /** Forces a variant; for tests and benchmarks. */
  readonly variant?: Pick<MatmulVariant, "kind" | "tile" | "workgroup" | "vec">;
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
 * @throws {RangeError} If sizes do not fit, naming the tensor.
 * @throws {TypeError} If B's type does not suit the layout.
 */
export function matmul(rec: Recorder, call: MatmulCall): void {
  const { A, B, C, layout, epilogue } = call;
  const fits = B.dtype === "f32" ||
    (layout === "mk,nk" && (B.dtype === "bf16" || B.dtype === "f16"));
  if (!fits) {
    throw new TypeError(
      `Cannot multiply ${A} by ${B}: expected ${
        layout === "mk,nk" ? "f32, bf16 or f16" : `f32 in layout ${layout}`
      }: got ${B.dtype}`,
    );
  }
  const nColumns = B.shape[layout === "mk,nk" ? 0 : 1];
  if (C.shape[1] !== nColumns) {
    throw new RangeError(
      `Cannot multiply ${A} by ${B}: the result must have ${nColumns} columns: got ${C}`,
    );
  }
  const M = A.shape[layout === "km,kn" ? 1 : 0]!;
  const K = A.shape[layout === "km,kn" ? 0 : 1]!;
  for (const { tensor: part, start } of B.windows()) {
    const N = part.shape[layout === "mk,nk" ? 0 : 1]!;
    const bType = B.dtype as MatmulVariant["bType"];
    const shape = call.variant ??
      chooseVariant(rec.gpu.isSoftware, layout, bType, M, N, K);
    const variant: MatmulVariant = {
      ...shape,
      layout,
      bType,
      epilogue: epilogue?.spec,
    };
    matmulKernel(variant).run(rec, { A, B: part, C, ...epilogue?.tensors }, {
      c_col: start,
      M,
      N,
      K,
      ...epilogue?.values,
    });
  }
}

/** The tile to use where none was measured: big register tiles on software drivers, shared tiles on graphics cards. */
function chooseVariant(
  isSoftware: boolean,
  layout: MatmulLayout,
  bType: MatmulVariant["bType"],
  M: number,
  N: number,
  K: number,
): Pick<MatmulVariant, "kind" | "tile" | "workgroup" | "vec"> {
  if (!isSoftware) {
    if (M <= 4 && layout === "mk,nk") {
      return { kind: "dot", tile: [M, 4], workgroup: [64, 1], vec: false };
    }
    return { kind: "workgroup", tile: [4, 4], workgroup: [16, 16], vec: false };
  }
  const aVec = (layout === "km,kn" ? M : K) % 4 === 0;
  const bVec = layout === "mk,nk"
    ? K % (bType === "f32" ? 4 : 8) === 0
    : N % 4 === 0;
  const vec = aVec && bVec;
  if (M < 12 || N < 64) {
    const m = Math.max(
      layout === "km,kn" ? 4 : 1,
      Math.min(16, 2 ** Math.ceil(Math.log2(M))),
    );
    return {
      kind: "registers",
      tile: [m, M <= 2 ? 4 : 8],
      workgroup: [8, m >= 8 ? 8 : 1],
      vec,
    };
  }
  // Eight lanes of 12 or of 16 columns, whichever leaves fewer of them idle past the last column.
  const idle = (tn: number) => Math.ceil(N / (8 * tn)) * 8 * tn - N;
  const n = idle(12) < idle(16) ? 12 : 16;
  const m = layout === "mk,nk" ? 8 : layout === "mk,kn" ? 12 : n;
  return { kind: "registers", tile: [m, n], workgroup: [8, 1], vec };
}

/** The kernel of a variant; made on first use. */
function matmulKernel(variant: MatmulVariant): MatmulKernel {
  const { kind, layout, bType, tile, workgroup, vec, epilogue } = variant;
  const key = [kind, layout, bType, tile, workgroup, vec, epilogue?.name].join(
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
  const { kind, layout, bType, tile: [TM, TN], workgroup: [wx, wy], epilogue } =
    variant;
  const [a, b] = layout.split(",") as [string, string];
  const dims = (letters: string) => [...letters.toUpperCase()];
  const perX = kind === "dot" ? TN : TN * wx;
  const perY = kind === "dot" ? TM : TM * wy;
  return defineKernel({
    name: ["matmul", kind, a, b, bType, ...(epilogue ? [epilogue.name] : [])]
      .join("_"),
    wgsl: matmulWgsl(variant),
    bindings: {
      A: { access: "read", dtype: "f32", shape: dims(a) },
      B: { access: "read", dtype: bType, shape: dims(b) },
      C: { access: "read_write", dtype: "f32", shape: ["M", "ldc"] },
      ...epilogue?.bindings,
    } as Readonly<Record<string, BindingSpec>>,
    uniforms: {
      M: "u32",
      N: "u32",
      K: "u32",
      ldc: "u32",
      c_col: "u32",
      ...Object.fromEntries(
        (epilogue?.uniforms ?? []).map((name) => [name, "f32" as const]),
      ),
    } as Readonly<Record<string, "u32" | "f32">>,
    workgroups: (
      dims,
    ) => [Math.ceil(dims.N! / perX), Math.ceil(dims.M! / perY), 1],
  });
}
