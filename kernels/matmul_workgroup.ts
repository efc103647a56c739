/**
 * Products with tiles in workgroup memory, and products with few rows, for graphics cards.
 * @module
 */
import { type Gpu, isQuantized } from "../gpu/mod.ts";
import type {
  MatmulLayout,
  MatmulShape,
  MatmulVariant,
  VariantShape,
} from "./matmul.ts";
import { rowLoads } from "./matmul_registers.ts";
import { lines, range, store } from "./matmul_text.ts";
import {
  type Operand,
  scalarStride,
  scalarTile,
  wideOperand,
  wideTile,
} from "./matmul_workgroup_tiles.ts";

/** Bytes of workgroup memory that every device has. */
const LEAST_STORAGE = 16384;

type Shape = Pick<VariantShape, "tile" | "workgroup" | "vec">;

/**
 * k values of both operands that a workgroup keeps at once: 16, or 8 where 16 would not fit into the workgroup memory
 * that every device has. Sums run over k in order either way.
 */
export function workgroupK(shape: Shape, layout: MatmulLayout): 8 | 16 {
  return storageOf(shape, layout, 16) <= LEAST_STORAGE ? 16 : 8;
}

/** Elements of 16 bytes. */
const perLoad = (type: string): number => type === "f32" ? 4 : 8;

/** Whether rows along k suit the 16-byte loads of a dot variant, if it has any. */
export function fitsDot(
  { vec }: Pick<VariantShape, "vec">,
  { aType, bType, K }: Pick<MatmulShape, "aType" | "bType" | "K">,
): boolean {
  return !vec || K % Math.max(perLoad(aType), perLoad(bType)) === 0;
}

/** Whether a workgroup or dot variant can make a product on a device. */
export function fitsWorkgroup(
  { maxComputeWorkgroupStorageSize: most, ...limits }: Gpu["limits"],
  { kind, vec, turns = false, ...shape }: VariantShape,
  product: MatmulShape,
): boolean {
  const { layout, aType, bType, M, N, K } = product;
  const { tile: [TM, TN], workgroup: [wx, wy] } = shape;
  if (
    turns || TM * TN > (kind === "dot" ? 256 : 64) ||
    wx > limits.maxComputeWorkgroupSizeX ||
    wy > limits.maxComputeWorkgroupSizeY ||
    wx * wy > limits.maxComputeInvocationsPerWorkgroup
  ) return false;
  if (kind === "dot") {
    // Lanes halve until few are left.
    return layout === "mk,nk" && wy === 1 && (wx & (wx - 1)) === 0 &&
      4 * wx * TM * TN <= most &&
      (isQuantized(bType) || fitsDot({ vec }, product));
  }
  const bytes = storageOf(
    { ...shape, vec },
    layout,
    workgroupK({ ...shape, vec }, layout),
  );
  if (bytes > most) return false;
  if (!vec || isQuantized(bType)) return true;
  const [aRows, bRows] = [layout.startsWith("mk"), layout.endsWith("nk")];
  // Columns of a tile are taken in groups of four.
  return (aRows ? K : M) % perLoad(aType) === 0 &&
    (bRows ? K : N) % perLoad(bType) === 0 &&
    (aRows || (TM % 4 === 0 && TM * wy % perLoad(aType) === 0)) &&
    (bRows || (TN % 4 === 0 && TN * wx % perLoad(bType) === 0));
}

function storageOf(
  { tile: [TM, TN], workgroup: [wx, wy], vec }: Shape,
  layout: MatmulLayout,
  k: 8 | 16,
): number {
  const bytes = (alongK: boolean, size: number): number =>
    vec ? 16 * wideTile(alongK, size, k).length : 4 * k * scalarStride(size, k);
  return bytes(layout.startsWith("mk"), TM * wy) +
    bytes(layout.endsWith("nk"), TN * wx);
}

/**
 * A workgroup shares tiles of A and B, each invocation keeps a small tile of C:
 * fast where many invocations hide each other's loads (graphics cards).
 */
export function workgroupBody(variant: MatmulVariant): string {
  return variant.vec ? wideBody(variant) : scalarBody(variant);
}

/** A workgroup's loop over k, between what fills its tiles and what stores its sums. */
function body(
  variant: MatmulVariant,
  a: Operand,
  b: Operand,
  multiply: readonly string[],
  row: (i: number) => string,
  column: (j: number) => string,
): string {
  const { layout, tile: [TM, TN], workgroup: [wx, wy] } = variant;
  return lines([
    ...a.declarations,
    ...b.declarations,
    `@compute @workgroup_size(${wx}, ${wy})`,
    `fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_id) id: vec3<u32>,`,
    `  @builtin(local_invocation_index) lane: u32) {`,
    `let m0 = wg.y * ${TM * wy}u; let n0 = wg.x * ${TN * wx}u;`,
    ...range(TM * TN).map((i) => `var s${i} = 0.0;`),
    `for (var k0 = 0u; k0 < u.K; k0 += ${workgroupK(variant, layout)}u) {`,
    a.fill,
    b.fill,
    `workgroupBarrier();`,
    ...multiply,
    `workgroupBarrier();`,
    `}`,
    ...range(TM).flatMap((i) => [
      `{ let m = m0 + ${row(i)}; if (m < u.M) {`,
      ...range(TN).map((j) =>
        `{ let n = n0 + ${column(j)}; if (n < u.N) { ${
          store(variant, "m", "n", `s${i * TN + j}`)
        } } }`
      ),
      `} }`,
    ]),
    `}`,
  ]);
}

/** Adds the products of an invocation's rows and columns at one k. */
function fmas(
  [TM, TN]: VariantShape["tile"],
  a: (i: number) => string,
  b: (j: number) => string,
): string[] {
  return range(TM).flatMap((i) =>
    range(TN).map((j) => {
      const sum = `s${i * TN + j}`;
      return `${sum} = fma(${a(i)}, ${b(j)}, ${sum});`;
    })
  );
}

/** Tiles `[k, m]` and `[k, n]` of numbers, for row lengths that are no multiples of four. */
function scalarBody(variant: MatmulVariant): string {
  const { layout, tile, workgroup: [wx, wy], aType, bType } = variant;
  const [TM, TN] = tile;
  const [BM, BN] = [TM * wy, TN * wx];
  const k = workgroupK(variant, layout);
  const lanes = wx * wy;
  const row = (i: number): string => `id.y + ${i * wy}u`;
  const column = (j: number): string => `id.x + ${j * wx}u`;
  const a = scalarTile("A", layout.startsWith("mk"), BM, k, lanes, aType);
  const b = scalarTile("B", layout.endsWith("nk"), BN, k, lanes, bType);
  const multiply = [
    `for (var k = 0u; k < ${k}u; k++) {`,
    ...range(TM).map((i) =>
      `let a${i} = a_tile[k * ${scalarStride(BM, k)}u + ${row(i)}];`
    ),
    ...range(TN).map((j) =>
      `let b${j} = b_tile[k * ${scalarStride(BN, k)}u + ${column(j)}];`
    ),
    ...fmas(tile, (i) => `a${i}`, (j) => `b${j}`),
    `}`,
  ];
  return body(variant, a, b, multiply, row, column);
}

/**
 * Tiles of vec4 as they lie in memory, four k of a row or four columns of a k, so that loads and stores of a tile are of
 * 16 bytes and nothing is transposed.
 */
function wideBody(variant: MatmulVariant): string {
  const { layout, tile, workgroup: [wx, wy], aType, bType } = variant;
  const [TM, TN] = tile;
  const k = workgroupK(variant, layout);
  const lanes = wx * wy;
  const a = wideOperand("A", layout.startsWith("mk"), TM, wy, k, lanes, aType);
  const b = wideOperand("B", layout.endsWith("nk"), TN, wx, k, lanes, bType);
  const multiply = [
    `for (var q = 0u; q < ${k / 4}u; q++) {`,
    ...a.rows,
    ...b.rows,
    ...range(4).flatMap((kk) => [
      ...a.columns(kk),
      ...b.columns(kk),
      ...fmas(tile, (i) => a.at(i, kk), (j) => b.at(j, kk)),
    ]),
    `}`,
  ];
  return body(variant, a, b, multiply, a.index, b.index);
}

/**
 * For few rows of A: the lanes of a workgroup share each sum over k, so that a
 * matrix-vector product fills a graphics card and reads weights in order. Eight lanes are
 * one SIMD register of a software driver: each then loads its part of a few whole rows.
 */
export function dotBody(variant: MatmulVariant): string {
  const { tile: [TM, TN], workgroup: [lanes], vec, aType, bType } = variant;
  const isPacked = aType !== "f32" || bType !== "f32";
  const step = !vec ? 1 : isPacked ? 8 : 4;
  const a = rowLoads("A", "m", TM, step, vec, aType);
  const b = rowLoads("B", "n", TN, step, vec, bType);
  const perRow = b.loads.length / TN;
  const sums = range(TM * TN);
  return lines([
    `var<workgroup> partial: array<f32, ${lanes * TM * TN}>;`,
    `@compute @workgroup_size(${lanes})`,
    `fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {`,
    `let m0 = wg.y * ${TM}u; let n0 = wg.x * ${TN}u;`,
    ...a.bases,
    ...b.bases,
    ...sums.map((at) => `var s${at} = 0.0;`),
    `for (var k = lane * ${step}u; k < u.K; k += ${lanes * step}u) {`,
    ...a.loads,
    // A row of B is used up before the next is loaded: registers hold one.
    ...range(TN).flatMap((j) => [
      ...b.loads.slice(j * perRow, (j + 1) * perRow),
      ...range(TM).flatMap((i) => {
        const sum = `s${i * TN + j}`;
        return range(step).map((kk) =>
          `${sum} = fma(${a.at(i, kk)}, ${b.at(j, kk)}, ${sum});`
        );
      }),
    ]),
    `}`,
    ...joinLanes(variant),
    `}`,
  ]);
}

/** Lanes whose parts of a sum one of them adds up. */
const LAST_LANES = 8;

/** Adds up what the lanes of a workgroup have of its sums `s0`, `s1`, …, and stores them. */
export function joinLanes(variant: MatmulVariant): string[] {
  const { tile: [TM, TN], workgroup: [lanes] } = variant;
  const sums = range(TM * TN);
  return [
    ...sums.map((at) => `partial[${at * lanes}u + lane] = s${at};`),
    `workgroupBarrier();`,
    ...halvings(lanes, TM * TN),
    `for (var at = lane; at < ${TM * TN}u; at += ${lanes}u) {`,
    `var sum = 0.0;`,
    ...range(Math.min(lanes, LAST_LANES)).map((i) =>
      `sum += partial[at * ${lanes}u + ${i}u];`
    ),
    `let m = m0 + at / ${TN}u; let n = n0 + at % ${TN}u;`,
    `if (m < u.M && n < u.N) { ${store(variant, "m", "n", "sum")} }`,
    `}`,
  ];
}

/** Adds up what the lanes of a workgroup have of its sums, until {@link LAST_LANES} of each are left. */
function halvings(lanes: number, nSums: number): string[] {
  if (lanes <= LAST_LANES) return [];
  return [
    `for (var half = ${
      lanes / 2
    }u; half >= ${LAST_LANES}u; half = half / 2u) {`,
    `if (lane < half) {`,
    ...range(nSums).map((at) =>
      `partial[${at * lanes}u + lane] += partial[${at * lanes}u + lane + half];`
    ),
    `}`,
    `workgroupBarrier();`,
    `}`,
  ];
}
