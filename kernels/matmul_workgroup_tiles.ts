/**
 * Tiles of operands in workgroup memory: how they lie there, and the WGSL that fills and reads them.
 * @module
 */
import { isQuantized } from "../gpu/mod.ts";
import type { MatmulVariant } from "./matmul.ts";
import { lines, range, unpackEight, unpackOne } from "./matmul_text.ts";

/** What a body does with one operand. */
export interface Operand {
  /** The tile in workgroup memory, and functions. */
  readonly declarations: string[];
  /** Fills the tile from k0 on. */
  readonly fill: string;
}

/** Numbers from one k to the next: 32 lanes that fill a tile along k meet 32 memory banks. */
export function scalarStride(size: number, k: 8 | 16): number {
  return size + 32 / k;
}

/** A tile `[k, m]` or `[k, n]` of numbers. */
export function scalarTile(
  name: "A" | "B",
  alongK: boolean,
  size: number,
  k: 8 | 16,
  lanes: number,
  type: MatmulVariant["bType"],
): Operand {
  const [v, letter] = name === "A" ? ["a", "m"] : ["b", "n"];
  const length = `u.${letter.toUpperCase()}`;
  const stride = scalarStride(size, k);
  const index = alongK ? `${letter} * u.K + k` : `k * ${length} + ${letter}`;
  // Neighboring invocations load neighboring addresses.
  const [kk, other] = alongK
    ? [`e % ${k}u`, `e / ${k}u`]
    : [`e / ${size}u`, `e % ${size}u`];
  return {
    declarations: [
      `var<workgroup> ${v}_tile: array<f32, ${k * stride}>;`,
      `fn load_${v}(${letter}: u32, k: u32) -> f32 {`,
      `if (${letter} >= ${length} || k >= u.K) { return 0.0; }`,
      isQuantized(type)
        ? `return b_at(n, k); }`
        : `let i = ${index}; return ${unpackOne(type, "i", name)}; }`,
    ],
    fill: lines([
      `for (var e = lane; e < ${k * size}u; e += ${lanes}u) {`,
      `let kk = ${kk}; let at = ${other};`,
      `${v}_tile[kk * ${stride}u + at] = load_${v}(${letter}0 + at, k0 + kk); }`,
    ]),
  };
}

/** Vectors of a tile, and from one of its rows to the next. */
export function wideTile(
  alongK: boolean,
  size: number,
  k: 8 | 16,
): { readonly stride: number; readonly length: number } {
  // Rows along k are an odd number of vectors apart, so that lanes that read one column of them meet all memory banks.
  const stride = alongK ? k / 4 + 1 : size / 4;
  return { stride, length: (alongK ? size : k) * stride };
}

/** An operand whose tile holds vectors. */
export interface WideOperand extends Operand {
  /** Loads for four k at once. */
  readonly rows: string[];
  /** Loads for one k. */
  columns(kk: number): string[];
  /** The element of the invocation's row or column `i`. */
  at(i: number, kk: number): string;
  /** Where row or column `i` of an invocation lies in the workgroup's tile. */
  index(i: number): string;
}

/** A tile of vec4, rows as they lie in memory: `count` rows or columns for each of `across` invocations. */
export function wideOperand(
  name: "A" | "B",
  alongK: boolean,
  count: number,
  across: number,
  k: 8 | 16,
  lanes: number,
  type: MatmulVariant["bType"],
): WideOperand {
  const [v, id] = name === "A" ? ["a", "id.y"] : ["b", "id.x"];
  const size = count * across;
  const { stride, length } = wideTile(alongK, size, k);
  const fill = wideFill(name, alongK, size, k, lanes, type);
  const common = {
    declarations: [`var<workgroup> ${v}_tile: array<vec4<f32>, ${length}>;`],
    fill,
  };
  if (alongK) {
    const index = (i: number): string => `${id} + ${i * across}u`;
    return {
      ...common,
      index,
      rows: range(count).map((i) =>
        `let ${v}${i} = ${v}_tile[(${index(i)}) * ${stride}u + q];`
      ),
      columns: () => [],
      at: (i, kk) => `${v}${i}[${kk}]`,
    };
  }
  return {
    ...common,
    index: (i) => `4u * (${id} + ${(i >> 2) * across}u) + ${i & 3}u`,
    rows: [],
    columns: (kk) =>
      range(count / 4).map((p) =>
        `let ${v}${kk}_${p} = ${v}_tile[(4u * q + ${kk}u) * ${stride}u + ${id} + ${
          p * across
        }u];`
      ),
    at: (i, kk) => `${v}${kk}_${i >> 2}[${i & 3}]`,
  };
}

/** The loop that fills a tile of vectors; what lies past the end is 0. */
function wideFill(
  name: "A" | "B",
  alongK: boolean,
  size: number,
  k: 8 | 16,
  lanes: number,
  type: MatmulVariant["bType"],
): string {
  const [v, letter] = name === "A" ? ["a", "m"] : ["b", "n"];
  const length = `u.${letter.toUpperCase()}`;
  const { stride } = wideTile(alongK, size, k);
  const per = type === "f32" || type === "q8" ? 4 : 8; // elements of a load
  const [rows, groups] = alongK ? [size, k / per] : [k, size / per];
  const [row, first, inside, rowLength] = alongK
    ? [`${letter}0 + r`, `k0 + g`, [length, `u.K`], `u.K`]
    : [`k0 + r`, `${letter}0 + g`, [`u.K`, length], length];
  const vectors = range(per / 4);
  const zeros = vectors.map((i) => `var ${v}v${i} = vec4<f32>();`);
  const i = `((${row}) * ${rowLength} + ${first}) / ${per}u`;
  const loads = isQuantized(type)
    ? vectors.map((i) => `${v}v${i} = b_four(${row}, ${first} + ${4 * i}u);`)
    : type === "f32"
    ? [`${v}v0 = ${name}[${i}];`]
    : [
      `let words = ${name}[${i}];`,
      ...unpackEight(type, "words", "w"),
      ...vectors.map((i) => `${v}v${i} = w${i};`),
    ];
  return lines([
    `for (var e = lane; e < ${rows * groups}u; e += ${lanes}u) {`,
    `let r = e / ${groups}u; let g = e % ${groups}u * ${per}u;`,
    ...zeros,
    `if (${row} < ${inside[0]} && ${first} < ${inside[1]}) {`,
    ...loads,
    `}`,
    ...vectors.map((i) =>
      `${v}_tile[r * ${stride}u + g / 4u + ${i}u] = ${v}v${i};`
    ),
    `}`,
  ]);
}
