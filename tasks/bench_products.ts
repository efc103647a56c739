/**
 * Matrix products: those of training and prefill, and those of decoding, where few rows meet all weights of a model.
 * @module
 */
import type { Olmo2Config } from "../core/olmo2_config.ts";
import type { Dtype, Gpu } from "../gpu/mod.ts";
import { matmul, type MatmulLayout } from "../kernels/matmul.ts";
import { fillRandom } from "./bench_ceilings.ts";
import {
  type Duration,
  leastTimes,
  type Rate,
  timesAsLong,
} from "./bench_timing.ts";

/** What it is of, layout, type of B, and sizes. */
export type Product = readonly [
  what: string,
  layout: MatmulLayout,
  bType: Dtype,
  M: number,
  N: number,
  K: number,
];

/** Products of the embedded model and its SAE. */
export const PRODUCTS: readonly Product[] = [
  ["x·W_gate_upᵀ, bf16", "mk,nk", "bf16", 2048, 1024, 192],
  ["SAE encode", "mk,nk", "f32", 1024, 1536, 192],
  ["SAE decode", "mk,kn", "f32", 1024, 192, 1536],
  ["SAE dW", "km,kn", "f32", 1536, 192, 1024],
];

/** Products of OLMo-2 7B with a prompt of 512 tokens, and of an SAE for it. */
export const LARGE_PRODUCTS: readonly Product[] = [
  ["x·W_gate_upᵀ, bf16", "mk,nk", "bf16", 512, 22_016, 4096],
  ["x·W_downᵀ, bf16", "mk,nk", "bf16", 512, 4096, 11_008],
  ["65k SAE encode, one window", "mk,nk", "f32", 512, 8192, 4096],
  ["65k SAE dW, one window", "km,kn", "f32", 8192, 4096, 512],
];

/** Times products one after the other. */
export async function benchProducts(
  gpu: Gpu,
  section: string,
  products: readonly Product[],
): Promise<Rate[]> {
  const rates: Rate[] = [];
  for (const [what, layout, dtype, M, N, K] of products) {
    using A = gpu.tensor("A", "f32", layout === "km,kn" ? [K, M] : [M, K]);
    using B = gpu.tensor("B", dtype, layout === "mk,nk" ? [N, K] : [K, N]);
    using C = gpu.tensor("C", "f32", [M, N]);
    const [time] = await leastTimes(gpu, [
      (rec) => matmul(rec, { layout, A, B, C }),
    ]) as [Duration];
    const rate = 2 * M * N * K / time.ms / 1e6;
    rates.push({
      section,
      what: `${what} ${M}×${N}×${K}`,
      ...time,
      rate,
      unit: "GFLOP/s",
      gflopPerS: rate,
    });
  }
  return rates;
}

/** Rows and columns of weights. */
export type WeightShape = readonly [out: number, in_: number];

/** The weights of a block and the head. */
export function weightShapes(config: Olmo2Config): WeightShape[] {
  const { d_model, d_ffn, n_heads, n_kv_heads, d_head, vocab_size } = config;
  return [
    [(n_heads + 2 * n_kv_heads) * d_head, d_model],
    [d_model, n_heads * d_head],
    [2 * d_ffn, d_model],
    [d_model, d_ffn],
    [vocab_size, d_model],
  ];
}

/** Rows of decoding steps. */
export const DECODED_ROWS = [1, 2, 8] as const;

/** Times the products of decoding steps of 1, 2 and 8 rows with packed weights, in turns. */
export async function benchDecodeProducts(
  gpu: Gpu,
  section: string,
  shapes: readonly WeightShape[],
  bType: Dtype = "bf16",
): Promise<Rate[]> {
  const rates: Rate[] = [];
  for (const [N, K] of shapes) {
    using owned = new DisposableStack();
    const B = owned.use(gpu.tensor("W", bType, [N, K]));
    fillRandom(B);
    const calls = DECODED_ROWS.map((M) => {
      const A = owned.use(gpu.tensor("x", "f32", [M, K]));
      const C = owned.use(gpu.tensor("y", "f32", [M, N]));
      return { layout: "mk,nk", A, B, C } as const;
    });
    const times = await leastTimes(
      gpu,
      calls.map((call) => (rec) => matmul(rec, call)),
    );
    for (const [i, M] of DECODED_ROWS.entries()) {
      const time = times[i]!;
      const { ms } = time;
      rates.push({
        section,
        what: `W[${N}, ${K}], ${bType}, x[${M}, ${K}]`,
        ...time,
        rate: 1000 * M / ms,
        unit: "rows/s",
        gbPerS: B.byteLength / ms / 1e6,
        gflopPerS: 2 * M * N * K / ms / 1e6,
        ...(M > 1 && timesAsLong(time, times[0]!)),
      });
    }
  }
  return rates;
}
