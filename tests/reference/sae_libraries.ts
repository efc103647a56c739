/**
 * What other libraries make of a vector with the SAE files that they read: their formulas in float64, by the names
 * that their files have.
 * @module
 */
import type { SaeTarget } from "../../core/sae_write.ts";
import { Safetensors } from "../../core/safetensors.ts";
import { type Folder, readJson } from "../../core/source.ts";

/** The files of an SAE, read whole. */
export interface SaeFiles {
  /** The config; the formulas need these two. */
  readonly config:
    & { readonly architecture?: string; readonly k?: number }
    & Readonly<Record<string, unknown>>;
  /** Tensors by name, in float64. */
  readonly t: Readonly<Record<string, Float64Array>>;
  readonly shapes: Readonly<Record<string, readonly number[]>>;
}

/** Reads the files of an SAE. */
export async function readSaeFiles(
  folder: Folder,
  weights: string,
  config: string,
): Promise<SaeFiles> {
  const file = await Safetensors.open(await folder.open(weights));
  const t: Record<string, Float64Array> = {};
  for (const name of file.tensors.keys()) {
    t[name] = Float64Array.from(await file.floats(name));
  }
  const shapes = Object.fromEntries(
    [...file.tensors].map(([name, { shape }]) => [name, shape]),
  );
  const json = await readJson(await folder.open(config));
  return { config: json as SaeFiles["config"], t, shapes };
}

/** What a library makes of a vector, in float64. */
export interface Features {
  readonly acts: Float64Array;
  readonly xHat: Float64Array;
}

/** y = A·x for A `[n, x.length]`, or its transpose `[x.length, n]`. */
export function product(
  A: Float64Array,
  x: ArrayLike<number>,
  isTransposed = false,
): Float64Array {
  const n = A.length / x.length;
  return Float64Array.from({ length: n }, (_, i) => {
    let sum = 0;
    for (let j = 0; j < x.length; j++) {
      sum += x[j]! * A[isTransposed ? j * n + i : i * x.length + j]!;
    }
    return sum;
  });
}

/** Element by element. */
export const plus = (a: Float64Array, b: Float64Array) =>
  a.map((v, i) => v + b[i]!);

/** The k largest above 0, with ties of the k-th. */
export function topk(values: Float64Array, k: number): Float64Array {
  const kth = [...values].sort((a, b) => b - a)[k - 1]!;
  return values.map((value) => value >= kth ? Math.max(value, 0) : 0);
}

/** The formulas of the libraries, by the names that their files have. */
export const LIBRARIES: Record<
  SaeTarget,
  (files: SaeFiles, x: Float64Array) => Features
> = {
  // acts = f(x @ W_enc + b_enc), x̂ = acts @ W_dec + b_dec
  "saelens": ({ config, t }, x) => {
    const pre = plus(product(t["W_enc"]!, x, true), t["b_enc"]!);
    const relu = pre.map((value) => Math.max(value, 0));
    const acts = config.architecture === "topk"
      ? topk(relu, config.k!)
      : config.architecture === "jumprelu"
      ? relu.map((act, i) => pre[i]! > t["threshold"]![i]! ? act : 0)
      : relu;
    const xHat = plus(product(t["W_dec"]!, acts, true), t["b_dec"]!);
    return { acts, xHat };
  },
  // acts = topk(relu((x - b_dec) @ encoder.weightᵀ + encoder.bias)), x̂ = acts @ W_dec + b_dec
  "sparsify": ({ config, t }, x) => {
    const centered = x.map((value, j) => value - t["b_dec"]![j]!);
    const pre = plus(
      product(t["encoder.weight"]!, centered),
      t["encoder.bias"]!,
    );
    const acts = topk(pre.map((value) => Math.max(value, 0)), config.k!);
    const xHat = plus(product(t["W_dec"]!, acts, true), t["b_dec"]!);
    return { acts, xHat };
  },
  // Both are torch.nn.Linear
  "open-concept-steering": ({ t }, x) => {
    const pre = plus(product(t["encode.weight"]!, x), t["encode.bias"]!);
    const acts = pre.map((value) => Math.max(value, 0));
    return {
      acts,
      xHat: plus(product(t["decode.weight"]!, acts), t["decode.bias"]!),
    };
  },
};
