/**
 * WGSL of the matrix product family. Accumulators are named variables, since an
 * array of them costs a third of the speed, so the text is generated from the
 * tile's shape: the one family that is not a `.wgsl` file.
 */
import type { MatmulVariant } from "./matmul.ts";

const range = (n: number) => [...Array(n).keys()];
const lines = (rows: Iterable<string>) => [...rows].join("\n");

/** The shader of one variant. */
export function matmulWgsl(variant: MatmulVariant): string {
  const body = {
    registers: registersBody,
    workgroup: workgroupBody,
    dot: dotBody,
  }[variant.kind](variant);
  return [header(variant), body, variant.epilogue?.wgsl ?? ""].join("\n");
}

function header({ layout, kind, bType, vec, epilogue }: MatmulVariant): string {
  const [a, b] = layout.split(",");
  const wide = vec && kind === "registers";
  const aType = wide ? "vec4<f32>" : "f32";
  const bWord = bType === "f32" ? "f32" : "u32";
  const extra = Object.keys(epilogue?.bindings ?? {});
  const element = (dtype: unknown) => (dtype === "u32" ? "u32" : "f32");
  return lines([
    `// C[m, c_col + n] = epilogue(sum_k A[m, k] * B[k, n]);  A is stored ${a}, B ${b} (${bType}), C [M, ldc].`,
    `@group(0) @binding(0) var<storage, read> A: array<${aType}>;`,
    `@group(0) @binding(1) var<storage, read> B: array<${
      wide ? `vec4<${bWord}>` : bWord
    }>;`,
    `@group(0) @binding(2) var<storage, read_write> C: array<f32>;`,
    ...extra.map((name, i) =>
      `@group(0) @binding(${i + 3}) var<storage, read> ${name}: array<${
        element(epilogue?.bindings[name]?.dtype)
      }>;`
    ),
    `struct Uniforms {`,
    `  M: u32, N: u32, K: u32, ldc: u32, c_col: u32,`,
    ...(epilogue?.uniforms ?? []).map((name) => `  ${name}: f32,`),
    `}`,
    `@group(0) @binding(${extra.length + 3}) var<uniform> u: Uniforms;`,
  ]);
}

/** Unpacks the element at `index` of a scalar-addressed B. */
function unpackOne(bType: MatmulVariant["bType"], index: string): string {
  if (bType === "f32") return `B[${index}]`;
  if (bType === "bf16") {
    return `bitcast<f32>((B[(${index}) >> 1u] >> (16u * ((${index}) & 1u))) << 16u)`;
  }
  return `unpack2x16float(B[(${index}) >> 1u])[(${index}) & 1u]`;
}

function store(
  variant: MatmulVariant,
  m: string,
  n: string,
  value: string,
): string {
  const at = `(${m}) * u.ldc + u.c_col + (${n})`;
  const result = variant.epilogue
    ? `epilogue(${value}, ${m}, u.c_col + (${n}), ${at})`
    : value;
  return `C[${at}] = ${result};`;
}

/**
 * Each invocation keeps a tile of C in registers and loads straight from storage:
 * fast where an invocation is a SIMD lane and loads are dear (software drivers).
 */
function registersBody(variant: MatmulVariant): string {
  const { layout, tile: [TM, TN], workgroup: [wx, wy], vec, bType } = variant;
  const aRows = layout.startsWith("mk");
  const bRows = layout.endsWith("nk");
  // k advances by one 16-byte load of the operand whose rows run over k.
  const step = !vec || !(aRows || bRows) ? 1 : bRows && bType !== "f32" ? 8 : 4;
  const accumulators = range(TM).flatMap((i) =>
    range(TN / 4).map((j) => ({ i, j, name: `s${i}_${j}` }))
  );
  const a = aRows
    ? rowLoads("A", "m", TM, step, vec, "f32")
    : columnLoads("A", "m", TM, step, vec);
  const b = bRows
    ? rowLoads("B", "n", TN, step, vec, bType)
    : columnLoads("B", "n", TN, step, vec);
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
    ...range(TM).flatMap((i) => [
      `if (m0 + ${i}u < u.M) {`,
      ...range(TN).map((j) =>
        `if (n0 + ${j}u < u.N) { ${
          store(
            variant,
            `m0 + ${i}u`,
            `n0 + ${j}u`,
            `s${i}_${j >> 2}[${j & 3}]`,
          )
        } }`
      ),
      `}`,
    ]),
    `}`,
  ]);
}

interface Loads {
  readonly bases: string[];
  readonly loads: string[];
  /** Expression of the element of row or column `i`, `kk` steps on from k. */
  at(i: number, kk: number): string;
}

/** Loads of an operand whose rows run over k. Rows past the end repeat the last one; stores leave them out. */
function rowLoads(
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
    `let ${v}r${i} = min(${letter}0 + ${i}u, ${size} - 1u) * u.K;`;
  const bases = range(tile).map(base);
  if (!vec) {
    const loads = range(tile).map((i) => {
      const index = `${v}r${i} + k`;
      return `let ${v}${i} = ${
        name === "A" ? `A[${index}]` : unpackOne(type, index)
      };`;
    });
    return { bases, loads, at: (i) => `${v}${i}` };
  }
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

/** Two vec4 of floats, named `${to}0` and `${to}1`, from a vec4 of packed pairs. */
function unpackEight(
  type: "bf16" | "f16" | "f32",
  from: string,
  to: string,
): string[] {
  return [0, 1].map((h) => {
    const [x, y] = [`${from}[${2 * h}]`, `${from}[${2 * h + 1}]`];
    if (type === "f16") {
      return `let ${to}${h} = vec4<f32>(unpack2x16float(${x}), unpack2x16float(${y}));`;
    }
    const pair = (word: string) =>
      `bitcast<f32>(${word} << 16u), bitcast<f32>(${word} & 0xffff0000u)`;
    return `let ${to}${h} = vec4<f32>(${pair(x)}, ${pair(y)});`;
  });
}

/** Loads of an f32 operand whose rows run over m or n, k outermost. */
function columnLoads(
  name: "A" | "B",
  letter: "m" | "n",
  tile: number,
  step: number,
  vec: boolean,
): Loads {
  const size = letter === "m" ? "u.M" : "u.N";
  const v = name.toLowerCase();
  if (!vec) {
    const bases = range(tile).map((i) =>
      `let ${v}c${i} = min(${letter}0 + ${i}u, ${size} - 1u);`
    );
    const loads = range(tile).map((i) =>
      `let ${v}${i} = ${name}[k * ${size} + ${v}c${i}];`
    );
    return { bases, loads, at: (i) => `${v}${i}` };
  }
  const bases = range(tile / 4).map((q) =>
    `let ${v}c${q} = min(${letter}0 + ${4 * q}u, ${size} - 4u);`
  );
  const loads = range(step).flatMap((kk) =>
    range(tile / 4).map((q) =>
      `let ${v}${kk}_${q} = ${name}[((k + ${kk}u) * ${size} + ${v}c${q}) / 4u];`
    )
  );
  return { bases, loads, at: (i, kk) => `${v}${kk}_${i >> 2}[${i & 3}]` };
}

/** k values that a workgroup keeps of both operands at once. */
const K_TILE = 16;

/**
 * A workgroup shares tiles of A and B, each invocation keeps a small tile of C:
 * fast where many invocations hide each other's loads (graphics cards).
 */
function workgroupBody(variant: MatmulVariant): string {
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
    `for (var k0 = 0u; k0 < u.K; k0 += ${K_TILE}u) {`,
    a.load,
    b.load,
    `workgroupBarrier();`,
    `for (var k = 0u; k < ${K_TILE}u; k++) {`,
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
    ? [`e % ${K_TILE}u`, `e / ${K_TILE}u`]
    : [`e / ${size}u`, `e % ${size}u`];
  const value = name === "A" ? "A[i]" : unpackOne(type, "i");
  return {
    declarations: [
      `var<workgroup> ${v}_tile: array<f32, ${K_TILE * stride}>;`,
      `fn load_${v}(${letter}: u32, k: u32) -> f32 {`,
      `if (${letter} >= ${length} || k >= u.K) { return 0.0; }`,
      `let i = ${index}; return ${value}; }`,
    ],
    load: lines([
      `for (var e = lane; e < ${K_TILE * size}u; e += ${threads}u) {`,
      `let kk = ${k}; let at = ${other};`,
      `${v}_tile[kk * ${stride}u + at] = load_${v}(${letter}0 + at, k0 + kk); }`,
    ]),
  };
}

/**
 * For few rows of A: the lanes of a workgroup share each sum over k, so that a
 * matrix-vector product fills a graphics card and reads weights in order.
 */
function dotBody(variant: MatmulVariant): string {
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
