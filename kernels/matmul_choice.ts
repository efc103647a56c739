/**
 * Which member of the family of matrix products is taken.
 * @module
 */
import { z } from "zod";
import { type Gpu, isQuantized, type Tensor } from "../gpu/mod.ts";
import type { MatmulLayout, VariantShape } from "./matmul.ts";
import { chooseQuantized, fitsQuantized } from "./matmul_quantized.ts";
import { fitsDot, fitsWorkgroup } from "./matmul_workgroup.ts";

/** A product's types and sizes. */
export interface MatmulShape {
  readonly layout: MatmulLayout;
  readonly aType: Tensor["dtype"];
  readonly bType: Tensor["dtype"];
  readonly M: number;
  readonly N: number;
  readonly K: number;
}

/** The variant that {@link matmul} takes where none is forced: the fastest, where it was timed. */
export function resolveVariant(gpu: Gpu, shape: MatmulShape): VariantShape {
  const decision = gpu.tuning.isEmpty
    ? undefined
    : gpu.tuning.get(matmulKey(shape));
  if (decision !== undefined) {
    // It may come from a file.
    const tuned = Variant.safeParse(decision);
    if (tuned.success && isUsable(gpu, tuned.data, shape)) return tuned.data;
  }
  return chooseVariant(gpu.isSoftware, shape);
}

/** Under which the variant of a product is remembered. */
export function matmulKey(
  { layout, aType, bType, M, N, K }: MatmulShape,
): string {
  return `matmul ${layout} ${aType} ${bType} ${M}x${N}x${K}`;
}

const count = z.int().min(1).max(1024);
const Variant: z.ZodType<VariantShape> = z.object({
  kind: z.enum(["registers", "workgroup", "dot"]),
  tile: z.tuple([count, count]),
  workgroup: z.tuple([count, count]),
  vec: z.boolean(),
  turns: z.boolean().exactOptional(),
});

/** Whether a variant can make a product on a device. */
export function isUsable(
  { limits }: Pick<Gpu, "limits">,
  variant: VariantShape,
  shape: MatmulShape,
): boolean {
  const { kind, workgroup: [wx, wy] } = variant;
  if (isQuantized(shape.bType) && !fitsQuantized(variant, shape)) return false;
  if (kind !== "registers") return fitsWorkgroup(limits, variant, shape);
  return wx * wy <= limits.maxComputeInvocationsPerWorkgroup &&
    fitsRegisters(variant, shape);
}

/** Rows of a tile whose operands are loaded along k: taller ones compile for seconds and are slower. */
const STRAIGHT_ROWS = 8;

/**
 * A forced variant as a product allows it: without transposes, or without 16-byte loads, where a size is odd, as that of
 * a last window. Tiles stay as wide, and sums run over k in the same order.
 * @throws {RangeError} If the product does not allow its tile either.
 */
export function suitVariant(
  gpu: Pick<Gpu, "limits">,
  variant: VariantShape,
  shape: MatmulShape,
): VariantShape {
  const { kind, tile, workgroup, turns = false } = variant;
  const [TM, TN] = tile;
  const isLow = turns && shape.layout !== "km,kn";
  const straight: VariantShape = {
    ...variant,
    tile: [isLow ? Math.min(TM, STRAIGHT_ROWS) : TM, TN],
    turns: false,
  };
  const suited = [variant, straight, { ...straight, vec: false }]
    .find((variant) => isUsable(gpu, variant, shape));
  if (suited) return suited;
  throw new RangeError(
    `Cannot multiply by ${kind} of tile ${tile.join("x")} in workgroups of ${
      workgroup.join("x")
    }: expected a variant that ${matmulKey(shape)} allows on this adapter`,
  );
}

/** Rounds after which Mesa's software driver leaves all loops of an invocation, and says nothing. */
const MOST_ROUNDS = 65_535;

/**
 * Checks that a driver does all rounds of a sum.
 * @throws {RangeError} If the sums of a product are too long for a software driver.
 */
export function checkRounds(
  { isSoftware }: Pick<Gpu, "isSoftware">,
  { kind, workgroup: [lanes], vec, turns = false }: VariantShape,
  { layout, aType, bType, K }: MatmulShape,
): void {
  const alongK = !turns && layout !== "km,kn";
  const perLane = !vec || !alongK
    ? 1
    : aType === "f32" && (bType === "f32" || layout === "mk,kn")
    ? 4
    : 8;
  // A workgroup has a round for each of its tiles, and one for each k in it.
  const nRounds = { registers: 1, workgroup: 17 / 16, dot: 1 / lanes }[kind] *
    K / (kind === "workgroup" ? 1 : perLane);
  if (!isSoftware || nRounds <= MOST_ROUNDS) return;
  throw new RangeError(
    `Cannot sum over ${K} products: expected at most ${
      Math.floor(MOST_ROUNDS * K / nRounds)
    } in layout ${layout} on a software driver, which ends longer loops early: use smaller batches, sizes that are multiples of 8, or a graphics card`,
  );
}

/** Whether a tile in registers suits a product's types and sizes. */
function fitsRegisters(
  variant: Pick<VariantShape, "tile" | "vec" | "turns">,
  shape: MatmulShape,
): boolean {
  const { tile: [TM, TN], vec, turns } = variant;
  if (TN % 4 !== 0 || TM * TN > 1024) return false;
  const layout = turns ? turnedLayout(shape) : shape.layout;
  const isTooLong = turns && shape.K > MOST_ROUNDS;
  if (layout === undefined || isTooLong || (turns && !vec)) return false;
  return !vec || isQuantized(shape.bType) ||
    fitsLoads(variant, { ...shape, layout });
}

/** The layout of a product after its operands were transposed; undefined where they can not be, or need not. */
function turnedLayout(
  { layout, aType, bType, M, N, K }: MatmulShape,
): MatmulLayout | undefined {
  const fits = (type: Tensor["dtype"], ...sizes: readonly number[]): boolean =>
    type !== "f16" && sizes.every((size) => size % perLoad(type) === 0);
  const fitsB = layout === "mk,kn" || fits(bType, N, K);
  return layout !== "km,kn" && fits(aType, M, K) && fitsB ? "km,kn" : undefined;
}

/** Elements of 16 bytes. */
function perLoad(type: Tensor["dtype"]): number {
  return type === "f32" ? 4 : 8;
}

/** Whether 16-byte loads suit rows and a tile of registers: rows along k are loaded in groups along k, others along the tile. */
function fitsLoads(
  { tile: [TM, TN] }: Pick<VariantShape, "tile">,
  { layout, aType, bType, M, N, K }: MatmulShape,
): boolean {
  const [perA, perB] = [perLoad(aType), perLoad(bType)];
  const fitsA = layout === "km,kn"
    ? M % perA === 0 && TM % perA === 0
    : K % perA === 0;
  const fitsB = layout === "mk,nk"
    ? K % perB === 0
    : N % perB === 0 && TN % perB === 0;
  return fitsA && fitsB;
}

/** The tile to use where none was measured: big register tiles on software drivers, shared tiles on graphics cards. */
function chooseVariant(
  isSoftware: boolean,
  shape: MatmulShape,
): VariantShape {
  const { layout, M, N, K } = shape;
  if (isQuantized(shape.bType)) return chooseQuantized(isSoftware, shape);
  if (!isSoftware) return chooseForCard(shape);
  const dot = chooseDot(shape);
  if (dot) return dot;
  if (M < 12 || N < 64) return chooseSmall(shape);
  const n = widthOf(shape);
  const large: VariantShape = {
    kind: "registers",
    // The taller tile is a tenth faster, and takes seconds to compile.
    tile: [M * N * K >= 2 ** 28 ? 32 : 24, n],
    workgroup: [8, 1],
    vec: true,
    turns: layout !== "km,kn",
  };
  const fewest = isWeights(shape) ? TURNED_ROWS : 96;
  const isLarge = M >= fewest && N >= 96 && K >= 64;
  if (isLarge && fitsRegisters(large, shape)) return large;
  const m = { "mk,nk": STRAIGHT_ROWS, "mk,kn": 12, "km,kn": 16 }[layout];
  return withLoads({ tile: [m, n], workgroup: [8, 1] }, shape);
}

/** Rows of A from which on transposing a model's weights for a product, again each time, takes less time than it saves. */
const TURNED_ROWS = 64;

/** Packed rows of a model's weights. */
export function isWeights(
  { layout, aType, bType }: Pick<MatmulShape, "layout" | "aType" | "bType">,
): boolean {
  return layout === "mk,nk" && aType === "f32" && bType !== "f32";
}

/** Columns of a tile for eight lanes of 12 or of 16, whichever leaves fewer of them idle past the last column. */
function widthOf({ bType, N }: MatmulShape): number {
  const idle = (n: number) => Math.ceil(N / (8 * n)) * 8 * n - N;
  return bType === "f32" && idle(12) < idle(16) ? 12 : 16;
}

/** Rows of B from which on eight lanes that share a row read faster than lanes of their own rows, which meet in few lines of the cache. */
const LONG_ROW = 1024;

/**
 * A tile for few rows of A and long rows of B: a decoding step on a software driver. A row of A costs two loads where
 * one of B costs one, so that the tile is wide: 16 rows of B suffice for up to 4 of A. 32 rows are a little faster where
 * they lie well in the cache, and take twice the time where they do not.
 */
function chooseDot(shape: MatmulShape): VariantShape | undefined {
  const { layout, M, K } = shape;
  const most = isWeights(shape) ? TURNED_ROWS - 1 : 8;
  if (layout !== "mk,nk" || K < LONG_ROW || M > most) return undefined;
  const m = powerOfTwo(M, 8);
  const dot: VariantShape = {
    kind: "dot",
    tile: [m, m === 8 ? 24 : 16],
    workgroup: [8, 1],
    vec: true,
  };
  return fitsDot(dot, shape) ? dot : undefined;
}

/** The least power of two that is not less than `n`, or `most`. */
function powerOfTwo(n: number, most: number): number {
  return Math.min(most, 2 ** Math.ceil(Math.log2(n)));
}

/** A tile for few rows or columns. */
function chooseSmall(shape: MatmulShape): VariantShape {
  const { layout, aType, M } = shape;
  const m = powerOfTwo(M, 16);
  if (layout === "mk,nk") {
    return withLoads({ tile: [m, m <= 8 ? 16 : 8], workgroup: [8, 1] }, shape);
  }
  const isNarrow = M <= 2 && shape.bType === "f32";
  return withLoads({
    tile: [
      layout === "km,kn" ? Math.max(perLoad(aType), m) : m,
      isNarrow ? 4 : 8,
    ],
    workgroup: [8, m >= 8 ? 8 : 1],
  }, shape);
}

/** Rows of A that a workgroup of a graphics card takes at once when its lanes share sums. */
const CARD_ROWS = 8;

/**
 * Few rows of A are read with weights in order, by 64 lanes of 16 bytes each; more rows of B then share what is loaded
 * of A. Others go through workgroup memory.
 */
function chooseForCard(shape: MatmulShape): VariantShape {
  const { layout, M } = shape;
  if (M > CARD_ROWS || layout !== "mk,nk") {
    return { kind: "workgroup", tile: [4, 4], workgroup: [16, 16], vec: false };
  }
  const m = powerOfTwo(M, CARD_ROWS);
  const dot = {
    kind: "dot",
    tile: [m, m === 8 ? 8 : 4],
    workgroup: [64, 1],
  } as const;
  return { ...dot, vec: fitsDot({ ...dot, vec: true }, shape) };
}

/** A tile in registers, with 16-byte loads where they fit. */
function withLoads(
  variant: Pick<VariantShape, "tile" | "workgroup">,
  shape: MatmulShape,
): VariantShape {
  const vec = fitsRegisters({ ...variant, vec: true }, shape);
  return { kind: "registers", ...variant, vec };
}
