/**
 * Products with tiles in registers, for software drivers.
 * @module
 */
import { isQuantized } from "../gpu/mod.ts";
import type { MatmulVariant } from "./matmul.ts";
import {
  lines,
  pair,
  range,
  store,
  unpackEight,
  unpackOne,
} from "./matmul_text.ts";

/**
 * Each invocation keeps a tile of C in registers and loads straight from storage:
 * fast where an invocation is a SIMD lane and loads are dear (software drivers).
 */
export function registersBody(variant: MatmulVariant): string {
  const { layout, tile: [TM, TN], workgroup: [wx, wy], vec } = variant;
  const { aType, bType } = variant;
  const aRows = layout.startsWith("mk");
  const bRows = layout.endsWith("nk");
  // k advances by one 16-byte load of the operand whose rows run over k.
  const isPacked = (aRows && aType !== "f32") || (bRows && bType !== "f32");
  const step = !vec || !(aRows || bRows) ? 1 : isPacked ? 8 : 4;
  const accumulators = range(TM).flatMap((i) =>
    range(TN / 4).map((j) => ({ i, j, name: `s${i}_${j}` }))
  );
  const a = aRows
    ? rowLoads("A", "m", TM, step, vec, aType)
    : columnLoads("A", "m", TM, step, vec, aType);
  const b = bRows
    ? rowLoads("B", "n", TN, step, vec, bType)
    : columnLoads("B", "n", TN, step, vec, bType);
  return lines([
    `@compute @workgroup_size(${wx}, ${wy})`,
    `fn main(@builtin(global_invocation_id) id: vec3<u32>) {`,
    `let m0 = id.y * ${TM}u; let n0 = id.x * ${TN}u;`,
    `if (m0 >= u.M || n0 >= u.N) { return; }`,
    ...a.bases,
    ...b.bases,
    ...accumulators.map(({ name }) => `var ${name} = vec4<f32>();`),
    `for (var k = 0u; k < u.K; k += ${step}u) {`,
    ...a.loads,
    ...b.loads,
    ...range(step).flatMap((kk) => [
      ...range(TN / 4).map((j) =>
        `let w${kk}_${j} = vec4<f32>(${
          range(4).map((c) => b.at(4 * j + c, kk)).join(", ")
        });`
      ),
      ...accumulators.map(({ i, j, name }) =>
        `${name} = fma(vec4<f32>(${a.at(i, kk)}), w${kk}_${j}, ${name});`
      ),
    ]),
    `}`,
    ...tileStores(variant),
    `}`,
  ]);
}

/** Stores a tile of an invocation that begins at row m0 and column n0, from sums `s0_0` on. */
export function tileStores(variant: MatmulVariant): string[] {
  return variant.vecC ? wideStores(variant) : stores(variant);
}

/** Stores a tile element by element. */
function stores(variant: MatmulVariant): string[] {
  const { tile: [TM, TN], epilogue } = variant;
  const { columns = [] } = epilogue ?? {};
  return range(TM).flatMap((i) => [
    `if (m0 + ${i}u < u.M) {`,
    ...tileBegin(epilogue),
    ...range(TN).flatMap((j) => [
      `if (n0 + ${j}u < u.N) {`,
      store(
        variant,
        `m0 + ${i}u`,
        `n0 + ${j}u`,
        `s${i}_${j >> 2}[${j & 3}]`,
      ),
      ...(epilogue?.tiles
        ? [
          `let col = u.c_col + n0 + ${j}u; let result = C[(m0 + ${i}u) * u.ldc + col];`,
          tileAdd(`result`, pair(columns.map((name) => `${name}[col]`)), j),
        ]
        : []),
      `}`,
    ]),
    ...tileEnd(epilogue, i),
    `}`,
  ]);
}

/** Stores a tile in groups of 4 columns, with what the epilogue wants of columns and elements loaded likewise. */
function wideStores({ tile: [TM, TN], epilogue }: MatmulVariant): string[] {
  const { elements = [], columns = [] } = epilogue ?? {};
  const groups = range(TN / 4);
  const at = (q: number, k: number): [e: string, c: string] => [
    pair(elements.map((_, n) => `e${n}[${k}]`)),
    pair(columns.map((_, n) => `c${n}_${q}[${k}]`)),
  ];
  return [
    `let col4 = (u.c_col + n0) / 4u; let width4 = u.ldc / 4u;`,
    ...columns.flatMap((name, n) =>
      groups.map((q) =>
        `let c${n}_${q} = ${name}[min(col4 + ${q}u, width4 - 1u)];`
      )
    ),
    ...range(TM).flatMap((i) => [
      `if (m0 + ${i}u < u.M) {`,
      `let row4 = (m0 + ${i}u) * width4 + col4;`,
      ...tileBegin(epilogue),
      ...groups.flatMap((q) => [
        `if (n0 + ${4 * q}u < u.N) {`,
        ...elements.map((name, n) => `let e${n} = ${name}[row4 + ${q}u];`),
        epilogue
          ? `let result = vec4<f32>(${
            range(4).map((k) => {
              const [e, c] = at(q, k);
              return `epilogue(s${i}_${q}[${k}], ${e}, ${c}, m0 + ${i}u)`;
            }).join(", ")
          });`
          : `let result = s${i}_${q};`,
        `C[row4 + ${q}u] = result;`,
        ...(epilogue?.tiles
          ? range(4).map((k) => tileAdd(`result[${k}]`, at(q, k)[1], 4 * q + k))
          : []),
        `}`,
      ]),
      ...tileEnd(epilogue, i),
      `}`,
    ]),
  ];
}

function tileBegin(epilogue: MatmulVariant["epilogue"]): string[] {
  return epilogue?.tiles ? [`var mask = 0u; var sum = 0.0;`] : [];
}

/** Adds a result to its row's tile, as column j. */
function tileAdd(result: string, c: string, j: number): string {
  return `mask |= u32(bitcast<u32>(${result}) != 0u) << ${j}u; sum += summand(${result}, ${c});`;
}

function tileEnd(epilogue: MatmulVariant["epilogue"], i: number): string[] {
  if (!epilogue?.tiles) return [];
  return [
    `let tile = (u.tile0 + id.x) * u.M + m0 + ${i}u;`,
    `tile_masks[tile] = mask; tile_sums[tile] = sum;`,
  ];
}

/** Loads of one operand in a loop over k. */
export interface Loads {
  readonly bases: string[];
  readonly loads: string[];
  /** Expression of the element of row or column `i`, `kk` steps on from k. */
  at(i: number, kk: number): string;
}

/** Loads of an operand whose rows run over k. Rows past the end repeat the last one; stores leave them out. */
export function rowLoads(
  name: "A" | "B",
  letter: "m" | "n",
  tile: number,
  step: number,
  vec: boolean,
  type: MatmulVariant["bType"],
): Loads {
  const size = letter === "m" ? "u.M" : "u.N";
  const v = name.toLowerCase();
  const base = (i: number) =>
    `let ${v}r${i} = min(${letter}0 + ${i}u, ${size} - 1u)${
      isQuantized(type) ? "" : " * u.K"
    };`;
  const bases = range(tile).map(base);
  if (!vec) {
    const loads = range(tile).map((i) => {
      const element = isQuantized(type)
        ? `b_at(${v}r${i}, k)`
        : unpackOne(type, `${v}r${i} + k`, name);
      return `let ${v}${i} = ${element};`;
    });
    return { bases, loads, at: (i) => `${v}${i}` };
  }
  if (isQuantized(type)) throw new TypeError(`Cannot load ${type} in pairs`);
  const packed = type !== "f32";
  const perLoad = packed ? 8 : 4;
  const loads = range(tile).flatMap((i) =>
    range(step / perLoad).flatMap((q) => {
      const word = `${v}${i}_${q}`;
      const load = `let ${word}${
        packed ? "p" : ""
      } = ${name}[(${v}r${i} + k) / ${perLoad}u + ${q}u];`;
      return packed
        ? [load, ...unpackEight(type, `${word}p`, `${v}${i}_`)]
        : [load];
    })
  );
  return { bases, loads, at: (i, kk) => `${v}${i}_${kk >> 2}[${kk & 3}]` };
}

/** Loads of an operand whose rows run over m or n, k outermost. */
function columnLoads(
  name: "A" | "B",
  letter: "m" | "n",
  tile: number,
  step: number,
  vec: boolean,
  type: MatmulVariant["bType"],
): Loads {
  const size = letter === "m" ? "u.M" : "u.N";
  const v = name.toLowerCase();
  if (!vec) {
    const bases = range(tile).map((i) =>
      `let ${v}c${i} = min(${letter}0 + ${i}u, ${size} - 1u);`
    );
    const loads = range(tile).map((i) => {
      const index = `k * ${size} + ${v}c${i}`;
      return `let ${v}${i} = ${unpackOne(type, index, name)};`;
    });
    return { bases, loads, at: (i) => `${v}${i}` };
  }
  const perLoad = type === "f32" ? 4 : 8;
  const bases = range(tile / perLoad).map((q) =>
    `let ${v}c${q} = min(${letter}0 + ${perLoad * q}u, ${size} - ${perLoad}u);`
  );
  const loads = range(step).flatMap((kk) =>
    range(tile / perLoad).flatMap((q) => {
      const load =
        `${name}[((k + ${kk}u) * ${size} + ${v}c${q}) / ${perLoad}u]`;
      if (type === "f32") return [`let ${v}${kk}_${q} = ${load};`];
      const words = `${v}${kk}_${q}p`;
      return [
        `let ${words} = ${load};`,
        ...unpackEight(type, words, `${v}${kk}_`, 2 * q),
      ];
    })
  );
  return { bases, loads, at: (i, kk) => `${v}${kk}_${i >> 2}[${i & 3}]` };
}
