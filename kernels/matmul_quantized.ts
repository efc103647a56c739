/**
 * Products by quantized weights, layout `mk,nk`: B is q8 or q4, A f32. Whole blocks of 32 along k are loaded at once; rows
 * with a short last block go element by element, through the bodies of the other types.
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

/** Elements of rows of B that eight lanes, one SIMD register of a software driver, read faster together than each a row of its own. */
const LONG_ROW = 1024;

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
  if (vec && M <= 2 && K >= LONG_ROW) {
    return { kind: "dot", tile: [m, 8 * m], workgroup: [8, 1], vec };
  }
  return { kind: "registers", tile: [m, 16], workgroup: [8, 1], vec };
}

/** What brings the element of a word that has this place to the highest bits. */
function shiftOf(place: number, bType: QuantizedDtype): number {
  return 32 - 32 / PER_WORD[bType] * (place + 1);
}

/**
 * Four integers as floats, times 2^24 (q8) or 2^28 (q4): in the highest bits the sign is where it belongs, and no second
 * shift is needed. Scales are made smaller by as much.
 */
function integers(words: string, shift: string, bType: QuantizedDtype): string {
  const mask = bType === "q8" ? "0xff000000u" : "0xf0000000u";
  return `vec4<f32>(bitcast<vec4<i32>>((${words} << ${shift}) & vec4<u32>(${mask})))`;
}

/** The scale of the block `block` of the tile's row of B, for {@link integers}. */
function scaleOf(row: number, bType: QuantizedDtype): string {
  const unit = bType === "q8" ? "0x1p-24f" : "0x1p-28f";
  return `${unit} * scale_in(B[br${row} + levels4 + block / 8u][block / 2u % 4u], block)`;
}

/** Where the tile's rows of A and B start, in units of 16 bytes; rows past the end repeat the last one. */
function rowStarts({ tile: [TM, TN] }: MatmulVariant): string[] {
  return [
    `let row4 = row_words(u.K) / 4u; let levels4 = level_words(u.K) / 4u;`,
    ...range(TM).map((i) =>
      `let ar${i} = min(m0 + ${i}u, u.M - 1u) * (u.K / 4u);`
    ),
    ...range(TN).map((j) => `let br${j} = min(n0 + ${j}u, u.N - 1u) * row4;`),
  ];
}

/** Tiles in registers, a word of each row of B at a time: little code, and few registers besides the sums. */
export function quantizedRegistersBody(variant: MatmulVariant): string {
  const { tile: [TM, TN], workgroup: [wx, wy] } = variant;
  const bType = variant.bType as QuantizedDtype;
  const per = PER_WORD[bType];
  const words = BLOCK / per; // of a block
  const groups = range(TN / 4);
  const sums = range(TM).flatMap((i) => groups.map((j) => ({ i, j })));
  const ofFour = (j: number, make: (row: number) => string): string =>
    range(4).map((c) => make(4 * j + c)).join(", ");
  return lines([
    `@compute @workgroup_size(${wx}, ${wy})`,
    `fn main(@builtin(global_invocation_id) id: vec3<u32>) {`,
    `let m0 = id.y * ${TM}u; let n0 = id.x * ${TN}u;`,
    `if (m0 >= u.M || n0 >= u.N) { return; }`,
    ...rowStarts(variant),
    ...sums.map(({ i, j }) => `var s${i}_${j} = vec4<f32>();`),
    `for (var block = 0u; block < u.K / ${BLOCK}u; block++) {`,
    ...groups.map((j) =>
      `let scale${j} = vec4<f32>(${ofFour(j, (row) => scaleOf(row, bType))});`
    ),
    `for (var word = 0u; word < ${words}u; word++) {`,
    ...range(TM).flatMap((i) =>
      range(per / 4).map((r) =>
        `let a${i}_${r} = A[ar${i} + 8u * block + ${per / 4}u * word + ${r}u];`
      )
    ),
    ...groups.map((j) =>
      `let w${j} = vec4<u32>(${
        ofFour(
          j,
          (row) => `B[br${row} + ${words / 4}u * block + word / 4u][word % 4u]`,
        )
      });`
    ),
    ...range(per).flatMap((part) => [
      ...groups.map((j) => {
        const shift = `vec4<u32>(${shiftOf(part, bType)}u)`;
        return `let b${part}_${j} = scale${j} * ${
          integers(`w${j}`, shift, bType)
        };`;
      }),
      ...sums.map(({ i, j }) =>
        `s${i}_${j} = fma(vec4<f32>(a${i}_${part >> 2}[${
          part & 3
        }]), b${part}_${j}, s${i}_${j});`
      ),
    ]),
    `}`,
    `}`,
    ...tileStores(variant),
    `}`,
  ]);
}

/** For few rows of A: lanes that share each sum, each with a block of a row of B at a time. */
export function quantizedDotBody(variant: MatmulVariant): string {
  const { tile: [TM, TN], workgroup: [lanes] } = variant;
  const bType = variant.bType as QuantizedDtype;
  const per = PER_WORD[bType];
  const loads = BLOCK / (4 * per); // of 16 bytes, in a block
  const vectors = range(BLOCK / 4);
  const unpack = (v: number): string => {
    const word = Math.floor(4 * v / per);
    const shifts = range(4).map((i) => `${shiftOf(4 * v % per + i, bType)}u`);
    return integers(
      `vec4<u32>(b${word >> 2}[${word & 3}])`,
      `vec4<u32>(${shifts.join(", ")})`,
      bType,
    );
  };
  return lines([
    `var<workgroup> partial: array<f32, ${lanes * TM * TN}>;`,
    `@compute @workgroup_size(${lanes})`,
    `fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {`,
    `let m0 = wg.y * ${TM}u; let n0 = wg.x * ${TN}u;`,
    ...rowStarts(variant),
    ...range(TM * TN).map((at) => `var s${at} = 0.0;`),
    `for (var block = lane; block < u.K / 32u; block += ${lanes}u) {`,
    ...range(TM).flatMap((i) =>
      vectors.map((v) => `let a${i}_${v} = A[ar${i} + 8u * block + ${v}u];`)
    ),
    // A row of B is used up before the next is loaded: registers hold one.
    ...range(TN).flatMap((j) => [
      `{`,
      ...range(loads).map((l) =>
        `let b${l} = B[br${j} + ${loads}u * block + ${l}u];`
      ),
      `let scale = ${scaleOf(j, bType)};`,
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
