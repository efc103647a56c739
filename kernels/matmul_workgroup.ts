/**
 * Products with tiles in workgroup memory, and products with few rows, for graphics cards.
 * @module
 */
import type { MatmulVariant } from "./matmul.ts";
import { lines, range, store, unpackOne } from "./matmul_text.ts";

/** k values that a workgroup keeps of both operands at once. */
export const WORKGROUP_K = 16;

/**
 * A workgroup shares tiles of A and B, each invocation keeps a small tile of C:
 * fast where many invocations hide each other's loads (graphics cards).
 */
export function workgroupBody(variant: MatmulVariant): string {
  const { layout, tile: [TM, TN], workgroup: [wx, wy], bType } = variant;
  const [BM, BN] = [TM * wy, TN * wx];
  const a = tileLoads("A", layout.startsWith("mk"), BM, wx * wy, "f32");
  const b = tileLoads("B", layout.endsWith("nk"), BN, wx * wy, bType);
  return lines([
    ...a.declarations,
    ...b.declarations,
    `@compute @workgroup_size(${wx}, ${wy})`,
    `fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_id) id: vec3<u32>,`,
    `  @builtin(local_invocation_index) lane: u32) {`,
    `let m0 = wg.y * ${BM}u; let n0 = wg.x * ${BN}u;`,
    ...range(TM * TN).map((i) => `var s${i} = 0.0;`),
    `for (var k0 = 0u; k0 < u.K; k0 += ${WORKGROUP_K}u) {`,
    a.load,
    b.load,
    `workgroupBarrier();`,
    `for (var k = 0u; k < ${WORKGROUP_K}u; k++) {`,
    ...range(TM).map((i) =>
      `let a${i} = a_tile[k * ${BM + 1}u + id.y + ${i * wy}u];`
    ),
    ...range(TN).map((j) =>
      `let b${j} = b_tile[k * ${BN + 1}u + id.x + ${j * wx}u];`
    ),
    ...range(TM).flatMap((i) =>
      range(TN).map((j) =>
        `s${i * TN + j} = fma(a${i}, b${j}, s${i * TN + j});`
      )
    ),
    `}`,
    `workgroupBarrier();`,
    `}`,
    ...range(TM).flatMap((i) => [
      `{ let m = m0 + id.y + ${i * wy}u; if (m < u.M) {`,
      ...range(TN).map((j) =>
        `{ let n = n0 + id.x + ${j * wx}u; if (n < u.N) { ${
          store(variant, "m", "n", `s${i * TN + j}`)
        } } }`
      ),
      `} }`,
    ]),
    `}`,
  ]);
}

/** The tile of an operand in workgroup memory, `[k, m]` or `[k, n]`, and the loop that fills it from k0 on. */
function tileLoads(
  name: "A" | "B",
  alongK: boolean,
  size: number,
  threads: number,
  type: MatmulVariant["bType"],
): { declarations: string[]; load: string } {
  const [v, letter] = name === "A" ? ["a", "m"] : ["b", "n"];
  const length = `u.${letter.toUpperCase()}`;
  const stride = size + 1; // rows one longer against bank conflicts
  const index = alongK ? `${letter} * u.K + k` : `k * ${length} + ${letter}`;
  // Neighboring invocations load neighboring addresses.
  const [k, other] = alongK
    ? [`e % ${WORKGROUP_K}u`, `e / ${WORKGROUP_K}u`]
    : [`e / ${size}u`, `e % ${size}u`];
  const value = name === "A" ? "A[i]" : unpackOne(type, "i");
  return {
    declarations: [
      `var<workgroup> ${v}_tile: array<f32, ${WORKGROUP_K * stride}>;`,
      `fn load_${v}(${letter}: u32, k: u32) -> f32 {`,
      `if (${letter} >= ${length} || k >= u.K) { return 0.0; }`,
      `let i = ${index}; return ${value}; }`,
    ],
    load: lines([
      `for (var e = lane; e < ${WORKGROUP_K * size}u; e += ${threads}u) {`,
      `let kk = ${k}; let at = ${other};`,
      `${v}_tile[kk * ${stride}u + at] = load_${v}(${letter}0 + at, k0 + kk); }`,
    ]),
  };
}

/**
 * For few rows of A: the lanes of a workgroup share each sum over k, so that a
 * matrix-vector product fills a graphics card and reads weights in order.
 */
export function dotBody(variant: MatmulVariant): string {
  const { tile: [TM, TN], workgroup: [lanes], bType } = variant;
  const sums = range(TM).flatMap((i) =>
    range(TN).map((j) => ({ i, j, at: i * TN + j }))
  );
  return lines([
    `var<workgroup> partial: array<f32, ${lanes * TM * TN}>;`,
    `@compute @workgroup_size(${lanes})`,
    `fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {`,
    `let m0 = wg.y * ${TM}u; let n0 = wg.x * ${TN}u;`,
    ...range(TM).map((i) => `let ar${i} = min(m0 + ${i}u, u.M - 1u) * u.K;`),
    ...range(TN).map((j) => `let br${j} = min(n0 + ${j}u, u.N - 1u) * u.K;`),
    ...sums.map(({ at }) => `var s${at} = 0.0;`),
    `for (var k = lane; k < u.K; k += ${lanes}u) {`,
    ...range(TM).map((i) => `let a${i} = A[ar${i} + k];`),
    ...range(TN).map((j) =>
      `let i${j} = br${j} + k; let b${j} = ${unpackOne(bType, `i${j}`)};`
    ),
    ...sums.map(({ i, j, at }) => `s${at} = fma(a${i}, b${j}, s${at});`),
    `}`,
    ...sums.map(({ at }) => `partial[${at}u * ${lanes}u + lane] = s${at};`),
    `workgroupBarrier();`,
    `for (var half = ${lanes / 2}u; half > 0u; half = half / 2u) {`,
    `if (lane < half) {`,
    ...sums.map(({ at }) =>
      `partial[${at * lanes}u + lane] += partial[${at * lanes}u + lane + half];`
    ),
    `}`,
    `workgroupBarrier();`,
    `}`,
    `if (lane == 0u) {`,
    ...sums.map(({ i, j, at }) =>
      `if (m0 + ${i}u < u.M && n0 + ${j}u < u.N) { ${
        store(variant, `m0 + ${i}u`, `n0 + ${j}u`, `partial[${at * lanes}u]`)
      } }`
    ),
    `}`,
    `}`,
  ]);
}
