/**
 * Attention for software drivers, where an invocation is a SIMD lane and a load of any memory costs what a dozen
 * multiplications do: each invocation takes several queries, and loads a page of keys once for all of them.
 * @module
 */
import { defineKernel, grid, type Kernel } from "../gpu/mod.ts";
import { PART_BINDINGS, PART_UNIFORMS } from "./attention_bindings.ts";
import { lines, range } from "./matmul_text.ts";

/** The queries that an invocation takes: heads of one key-value head, for tokens that follow each other. */
export interface QueryTile {
  readonly tokens: number;
  readonly heads: number;
  /** Whether it takes a part of the keys, to be joined with others, or all of them. */
  readonly isPart: boolean;
}

type RegistersKernel = Kernel<
  typeof PART_BINDINGS,
  typeof PART_UNIFORMS,
  "D4"
>;
const kernels = new Map<string, RegistersKernel>();

/** Invocations of a workgroup: the lanes of a SIMD register, so that few queries reach all cores. */
export const LANES = 8;

/** The kernel for a tile and a size of pages; made on first use. */
export function attentionRegisters(
  tile: QueryTile,
  pageTokens: number,
): RegistersKernel {
  const key = [tile.tokens, tile.heads, tile.isPart, pageTokens].join(" ");
  let kernel = kernels.get(key);
  if (!kernel) {
    kernel = defineKernel({
      name: "attention_registers",
      wgsl: attentionWgsl(tile, pageTokens),
      bindings: PART_BINDINGS,
      consts: ["D4"],
      uniforms: PART_UNIFORMS,
      workgroups: ({ n_blocks, d_q, D4, n_parts }) => {
        const nTiles = n_blocks * d_q / (4 * D4 * tile.heads);
        return grid(Math.ceil(nTiles * n_parts / LANES));
      },
    });
    kernels.set(key, kernel);
  }
  return kernel;
}

/** A query of the tile: the names of its variables end in its number. */
interface Query {
  readonly r: number;
  readonly token: number;
  readonly head: number;
}

/**
 * Scores and their weights are named variables, `s0_15` for query 0 and key 15 of the page; an array would be slower
 * memory. The sum of values has no room beside them: it lies in its place in memory, and is taken up again for each page.
 */
function attentionWgsl(tile: QueryTile, page: number): string {
  const queries = range(tile.tokens).flatMap((token) =>
    range(tile.heads).map((head): Query => ({
      r: token * tile.heads + head,
      token,
      head,
    }))
  );
  const keys = range(page);
  const width = tile.isPart ? "(D4 + 1u)" : "D4";
  return lines([
    `// z[t, h] = sum_s softmax_s(q[t, h] · K[slot(s), h'] / sqrt(d_head)) V[slot(s), h'],  s = 0 .. position(t)`,
    `// One invocation per block of up to ${tile.tokens} tokens, ${tile.heads} heads, and part of the keys; heads across lanes, a page of keys at a time.`,
    `@group(0) @binding(0) var<storage, read> q: array<vec4<f32>>;       // [T, d_q]`,
    `@group(0) @binding(1) var<storage, read> K: array<vec4<f32>>;       // [slots, d_kv]`,
    `@group(0) @binding(2) var<storage, read> V: array<vec4<f32>>;       // [slots, d_kv]`,
    `@group(0) @binding(3) var<storage, read> blocks: array<vec4<u32>>;  // first token, tokens, row, position of the first`,
    `@group(0) @binding(4) var<storage, read> pages: array<u32>;         // [rows, pages_per_row]`,
    `@group(0) @binding(5) var<storage, read_write> sums: array<vec4<f32>>; // z [T, d_q], or parts [T, heads, n_parts, D4 + 1]`,
    `struct Uniforms { n_blocks: u32, d_q: u32, d_kv: u32, pages_per_row: u32, n_parts: u32, part_keys: u32, scale: f32 }`,
    `@group(0) @binding(6) var<uniform> u: Uniforms;`,
    `@compute @workgroup_size(${LANES})`,
    `fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n_wg: vec3<u32>,`,
    `    @builtin(local_invocation_index) lane: u32) {`,
    `let n_heads = u.d_q / (4u * D4);`,
    `let n_tiles = n_heads / ${tile.heads}u;`,
    `let id = (wg.y * n_wg.x + wg.x) * ${LANES}u + lane;`,
    `if (id >= u.n_blocks * u.n_parts * n_tiles) { return; }`,
    `let head0 = id % n_tiles * ${tile.heads}u;`,
    `let start = id / n_tiles % u.n_parts * u.part_keys;`,
    `let block = blocks[id / n_tiles / u.n_parts];`,
    `let column = head0 / (u.d_q / u.d_kv) * D4;`,
    `let row = block.z * u.pages_per_row;`,
    `let end = min(start + u.part_keys, block.w + block.y);`,
    ...queries.flatMap(({ r, token, head }) => [
      `let at${r} = (block.x + min(${token}u, block.y - 1u)) * n_heads + head0 + ${head}u;`,
      `let q${r} = at${r} * D4;`,
      `let to${r} = (at${r} * u.n_parts + start / u.part_keys) * ${width};`,
      `let seen${r} = min(block.w + ${token + 1}u, end);`,
      `var most${r} = -3.0e38; var total${r} = 0.0;`,
    ]),
    `for (var s = start; s < end; s += ${page}u) {`,
    `let slot = pages[row + s / ${page}u] * ${page}u;`,
    // Slots past the last token may hold anything: the last one stands in for them, and weighs nothing.
    ...keys.map((n) =>
      `let key${n} = (slot + min(${n}u, end - 1u - s)) * (u.d_kv / 4u) + column;`
    ),
    ...scores(queries, keys),
    ...weights(queries, keys),
    ...sums(queries, keys, tile),
    `}`,
    ...(tile.isPart
      ? queries.map(({ r, token }) =>
        `if (${token}u < block.y) { sums[to${r} + D4] = vec4<f32>(most${r}, total${r}, 0.0, 0.0); }`
      )
      : []),
    `}`,
  ]);
}

/** Dot products of all queries and keys of a page. */
function scores(queries: readonly Query[], keys: readonly number[]): string[] {
  return [
    ...queries.flatMap(({ r }) => keys.map((n) => `var s${r}_${n} = 0.0;`)),
    `for (var i = 0u; i < D4; i++) {`,
    ...queries.map(({ r }) => `let x${r} = q[q${r} + i];`),
    ...keys.flatMap((n) => [
      `let k${n} = K[key${n} + i];`,
      ...queries.map(({ r }) =>
        `s${r}_${n} = ${
          [..."xyzw"].reduce(
            (sum, c) => `fma(x${r}.${c}, k${n}.${c}, ${sum})`,
            `s${r}_${n}`,
          )
        };`
      ),
    ]),
    `}`,
  ];
}

/** What each key weighs against the largest score so far, in the place of its score, and by what earlier sums shrink. */
function weights(queries: readonly Query[], keys: readonly number[]): string[] {
  return queries.flatMap(({ r }) => [
    ...keys.map((n) =>
      `s${r}_${n} = select(-3.0e38, s${r}_${n} * u.scale, s + ${n}u < seen${r});`
    ),
    `let larger${r} = ${
      keys.reduce((most, n) => `max(${most}, s${r}_${n})`, `most${r}`)
    };`,
    `let keep${r} = exp(most${r} - larger${r});`,
    `most${r} = larger${r};`,
    ...keys.map((n) => `s${r}_${n} = exp(s${r}_${n} - larger${r});`),
    `total${r} = total${r} * keep${r} + (${
      keys.map((n) => `s${r}_${n}`).join(" + ")
    });`,
  ]);
}

/** Adds the page's values, and divides after the last page, but for a part. What is not finite must not reach earlier tokens, not even times 0. */
function sums(
  queries: readonly Query[],
  keys: readonly number[],
  { isPart }: QueryTile,
): string[] {
  return [
    ...queries.map(({ r }) =>
      isPart
        ? `let share${r} = 1.0;`
        : `let share${r} = select(1.0, 1.0 / total${r}, s + ${keys.length}u >= end);`
    ),
    `for (var i = 0u; i < D4; i++) {`,
    ...queries.map(({ r }) =>
      `var z${r} = select(sums[to${r} + i], vec4<f32>(), s == start) * keep${r};`
    ),
    ...keys.flatMap((n) => [
      `let v${n} = V[key${n} + i];`,
      ...queries.map(({ r }) =>
        `z${r} = select(z${r}, fma(v${n}, vec4<f32>(s${r}_${n}), z${r}), s + ${n}u < seen${r});`
      ),
    ]),
    // A block of fewer tokens repeats its last one; only that one's own query may store.
    ...queries.map(({ r, token }) =>
      `if (${token}u < block.y) { sums[to${r} + i] = z${r} * share${r}; }`
    ),
    `}`,
  ];
}
