/**
 * Products by quantized weights, layout `mk,nk`: B is q8 or q4, A f32. Integers of a block are multiplied as they are, and
 * its scale is applied to the sum over the block. Whole blocks of 32 along k are loaded at once; rows with a short last
 * block go element by element, through the bodies of the other types.
 * @module
 */
import { BLOCK, isQuantized, type QuantizedDtype } from "../gpu/mod.ts";
import type { MatmulShape } from "./matmul_choice.ts";
import type { MatmulVariant, VariantShape } from "./matmul.ts";
import { lines, range } from "./matmul_text.ts";
import { tileStores } from "./matmul_registers.ts";
import { joinLanes } from "./matmul_workgroup.ts";
import { QUANTIZED_ROWS } from "./quantized.ts";

/** Elements of a word. */
const PER_WORD: Readonly<Record<QuantizedDtype, 4 | 8>> = { q8: 4, q4: 8 };

/** Functions that the bodies call: `b_at(n, k)`, an element of B, `b_four(n, k)`, four in one word, and those of quantized rows. */
export function quantizedHelpers(variant: MatmulVariant): string[] {
  const { kind, bType, vec } = variant;
  if (!isQuantized(bType)) return [];
  if (vec && kind !== "workgroup") return [...QUANTIZED_ROWS[bType]];
  return [
    ...QUANTIZED_ROWS[bType],
    `fn b_at(n: u32, k: u32) -> f32 {`,
    `let row = n * row_words(u.K);`,
    `return scale_in(B[row + level_words(u.K) + k / 64u], k / 32u) * level_in(B[row + k / PER_WORD], k); }`,
    `fn b_four(n: u32, k: u32) -> vec4<f32> {`,
    `let row = n * row_words(u.K); let word = B[row + k / PER_WORD];`,
    `let scale = scale_in(B[row + level_words(u.K) + k / 64u], k / 32u);`,
    `return scale * vec4<f32>(level_in(word, k), level_in(word, k + 1u), level_in(word, k + 2u), level_in(word, k + 3u)); }`,
  ];
}

/** Whether a variant suits a product by quantized weights, but for the device's limits: those with 16-byte loads take whole blocks. */
export function fitsQuantized(
  { kind, vec, turns = false }: VariantShape,
  { layout, aType, K }: MatmulShape,
): boolean {
  return layout === "mk,nk" && aType === "f32" && !turns &&
    (vec ? K % BLOCK === 0 : kind !== "dot");
}

/** The variant to take where none was measured. */
export function chooseQuantized(
  isSoftware: boolean,
  { M, K }: MatmulShape,
): VariantShape {
  const vec = K % BLOCK === 0;
  const m = Math.min(8, 2 ** Math.ceil(Math.log2(M)));
  if (!isSoftware) {
    return vec && M <= 8
      ? { kind: "dot", tile: [m, 4], workgroup: [64, 1], vec }
      : { kind: "workgroup", tile: [4, 4], workgroup: [16, 16], vec };
  }
  return { kind: "registers", tile: [m, 8], workgroup: [8, 1], vec };
}

/**
 * Integers of one element each from words of four rows, as floats times 2^24 (q8) or 2^28 (q4): the sign is where it
 * belongs, and a shift less is needed. Scales are made smaller by as much.
 */
function levels(words: string, part: number, bType: QuantizedDtype): string {
  const shift = 32 - 32 / PER_WORD[bType] * (part + 1);
  const left = shift === 0 ? words : `(${words} << vec4<u32>(${shift}u))`;
  // Nothing lies below the first element.
  const only = part === 0 ? left : `(${left} & vec4<u32>(${mask(bType)}))`;
  return `vec4<f32>(bitcast<vec4<i32>>(${only}))`;
}

/** Where {@link levels} has the integer. */
function mask(bType: QuantizedDtype): string {
  return bType === "q8" ? "0xff000000u" : "0xf0000000u";
}

/** What makes up for the place of the integers in {@link levels}. */
function unit(bType: QuantizedDtype): string {
  return bType === "q8" ? "0x1p-24f" : "0x1p-28f";
}

/** Tiles in registers, a block along k at a time. */
export function quantizedRegistersBody(variant: MatmulVariant): string {
  const { tile: [TM, TN], workgroup: [wx, wy] } = variant;
  const bType = variant.bType as QuantizedDtype;
  const per = PER_WORD[bType];
  const groups = range(TN / 4);
  const sums = range(TM).flatMap((i) => groups.map((j) => ({ i, j })));
  const word = (r: number): string[] => [
    ...groups.map((j) =>
      `let w${r}_${j} = vec4<u32>(${
        range(4).map((c) => `b${4 * j + c}[${r}]`).join(", ")
      });`
    ),
    ...range(per).flatMap((part) => [
      ...groups.map((j) =>
        `let l${r}_${part}_${j} = ${levels(`w${r}_${j}`, part, bType)};`
      ),
      ...sums.map(({ i, j }) => {
        const k = per * r + part;
        return `p${i}_${j} = fma(vec4<f32>(a${i}_${k >> 2}[${
          k & 3
        }]), l${r}_${part}_${j}, p${i}_${j});`;
      }),
    ]),
  ];
  const loads = BLOCK / (4 * per); // of 16 bytes, in a block
  return lines([
    `@compute @workgroup_size(${wx}, ${wy})`,
    `fn main(@builtin(global_invocation_id) id: vec3<u32>) {`,
    `let m0 = id.y * ${TM}u; let n0 = id.x * ${TN}u;`,
    `if (m0 >= u.M || n0 >= u.N) { return; }`,
    `let row4 = row_words(u.K) / 4u; let levels4 = level_words(u.K) / 4u;`,
    ...range(TM).map((i) =>
      `let ar${i} = min(m0 + ${i}u, u.M - 1u) * (u.K / 4u);`
    ),
    ...range(TN).map((j) => `let br${j} = min(n0 + ${j}u, u.N - 1u) * row4;`),
    ...sums.map(({ i, j }) => `var s${i}_${j} = vec4<f32>();`),
    `for (var block = 0u; block < u.K / 32u; block++) {`,
    ...sums.map(({ i, j }) => `var p${i}_${j} = vec4<f32>();`),
    `for (var load = ${loads}u * block; load < ${loads}u * block + ${loads}u; load++) {`,
    ...range(TM).flatMap((i) =>
      range(per).map((r) =>
        `let a${i}_${r} = A[ar${i} + ${per}u * load + ${r}u];`
      )
    ),
    ...range(TN).map((j) => `let b${j} = B[br${j} + load];`),
    ...range(4).flatMap(word),
    `}`,
    ...groups.map((j) =>
      `let scale${j} = ${unit(bType)} * vec4<f32>(${
        range(4).map((c) =>
          `scale_in(B[br${
            4 * j + c
          } + levels4 + block / 8u][block / 2u % 4u], block)`
        ).join(", ")
      });`
    ),
    ...sums.map(({ i, j }) =>
      `s${i}_${j} = fma(p${i}_${j}, scale${j}, s${i}_${j});`
    ),
    `}`,
    ...tileStores(variant),
    `}`,
  ]);
}

/** For few rows of A: lanes that share each sum, each with 16 bytes of a row of B at a time. */
export function quantizedDotBody(variant: MatmulVariant): string {
  const { tile: [TM, TN], workgroup: [lanes] } = variant;
  const bType = variant.bType as QuantizedDtype;
  const per = PER_WORD[bType];
  const bits = 32 / per;
  const block = bType === "q8" ? "at / 2u" : "at";
  const sums = range(TM * TN);
  const vectors = range(per); // of four elements, in 16 bytes
  const unpack = (v: number): string => {
    const first = 4 * v % per; // of the elements of a word
    const shifts = range(4).map((i) => `${32 - bits * (first + i + 1)}u`);
    const words = `vec4<u32>(b[${4 * v / per | 0}]) << vec4<u32>(${
      shifts.join(", ")
    })`;
    return `vec4<f32>(bitcast<vec4<i32>>((${words}) & vec4<u32>(${
      mask(bType)
    })))`;
  };
  return lines([
    `var<workgroup> partial: array<f32, ${lanes * TM * TN}>;`,
    `@compute @workgroup_size(${lanes})`,
    `fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {`,
    `let m0 = wg.y * ${TM}u; let n0 = wg.x * ${TN}u;`,
    `let row4 = row_words(u.K) / 4u; let levels4 = level_words(u.K) / 4u;`,
    ...range(TM).map((i) =>
      `let ar${i} = min(m0 + ${i}u, u.M - 1u) * (u.K / 4u);`
    ),
    ...range(TN).map((j) => `let br${j} = min(n0 + ${j}u, u.N - 1u) * row4;`),
    ...sums.map((at) => `var s${at} = 0.0;`),
    `for (var at = lane; at < levels4; at += ${lanes}u) {`,
    `let block = ${block};`,
    ...range(TM).flatMap((i) =>
      vectors.map((v) => `let a${i}_${v} = A[ar${i} + ${per}u * at + ${v}u];`)
    ),
    // A row of B is used up before the next is loaded: registers hold one.
    ...range(TN).flatMap((j) => [
      `{ let b = B[br${j} + at];`,
      `let scale = ${
        unit(bType)
      } * scale_in(B[br${j} + levels4 + block / 8u][block / 2u % 4u], block);`,
      ...vectors.map((v) => `let l${v} = ${unpack(v)};`),
      ...range(TM).flatMap((i) => {
        const sum = `s${i * TN + j}`;
        return [
          `{ var p = a${i}_0 * l0;`,
          ...vectors.slice(1).map((v) => `p = fma(a${i}_${v}, l${v}, p);`),
          `${sum} = fma(scale, (p.x + p.y) + (p.z + p.w), ${sum}); }`,
        ];
      }),
      `}`,
    ]),
    `}`,
    ...joinLanes(variant),
    `}`,
  ]);
}
