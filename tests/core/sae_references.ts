/**
 * What the tools that write SAEs compute with them, in float64 and as their classes have it: the references of the
 * formats' tests.
 * @module
 */
import assert from "node:assert/strict";
import type { SaeFile } from "../../core/sae_file.ts";
import { Safetensors, safetensorsChunks } from "../../core/safetensors.ts";
import { directory } from "../../core/files.ts";
import type { Folder } from "../../core/source.ts";
import { writableFolder } from "./sae_for_tests.ts";

/** Folder of the files that other tools wrote. */
export const FORMATS: Folder = directory(
  new URL("../fixtures/sae-formats", import.meta.url).pathname,
);

/** A folder of {@link FORMATS}. */
export function formatFolder(name: string): Folder {
  return directory(`${FORMATS.name}/${name}`);
}

/** The numbers that all of those files are made of. */
export interface RawWeights {
  readonly d_model: number;
  readonly d_sae: number;
  /** Vectors to encode, one behind the other. */
  readonly x: Float32Array;
  /** `[d_sae, d_model]` */
  readonly W_enc: Float32Array;
  /** `[d_sae, d_model]` */
  readonly W_dec: Float32Array;
  readonly b_enc: Float32Array;
  readonly b_dec: Float32Array;
  readonly threshold: Float32Array;
  readonly r_mag: Float32Array;
  readonly b_gate: Float32Array;
}

export async function rawWeights(): Promise<RawWeights> {
  const file = await Safetensors.open(
    await FORMATS.open("weights.safetensors"),
  );
  const [d_sae, d_model] = file.info("W_enc").shape as [number, number];
  const names = [...file.tensors.keys()];
  const read = await Promise.all(names.map((name) => file.floats(name)));
  const tensors = Object.fromEntries(names.map((name, i) => [name, read[i]!]));
  return { d_model, d_sae, ...tensors } as unknown as RawWeights;
}

/** Activations and reconstruction of some vectors, one behind the other. */
export interface Encoded {
  readonly acts: number[];
  readonly xHat: number[];
}

/** A formula: activations of one vector. */
export type Encode = (x: number[]) => number[];

/** (x - center)·W_encᵀ + bias, times a factor of each feature. */
export function linear(
  raw: RawWeights,
  options: {
    center?: ArrayLike<number>;
    bias?: ArrayLike<number>;
    factor?: ArrayLike<number>;
  } = {},
): Encode {
  const { W_enc, d_model, d_sae } = raw;
  const { center, bias, factor } = options;
  return (x) =>
    Array.from({ length: d_sae }, (_, i) => {
      const sum = x.reduce(
        (sum, value, j) =>
          sum + (value - (center?.[j] ?? 0)) * W_enc[i * d_model + j]!,
        bias?.[i] ?? 0,
      );
      return sum * (factor?.[i] ?? 1);
    });
}

export const relu = (values: number[]): number[] =>
  values.map((value) => Math.max(value, 0));

/** What is above its threshold, and above 0. */
export const jumpRelu = (
  values: number[],
  threshold: ArrayLike<number>,
): number[] =>
  values.map((value, i) => value > threshold[i]! ? Math.max(value, 0) : 0);

/** The k largest, and of those what is above 0. */
export const topK = (values: number[], k: number): number[] => {
  const kth = values.toSorted((a, b) => b - a)[k - 1]!;
  return values.map((value) => value >= kth ? Math.max(value, 0) : 0);
};

/** Norms of the decoder rows. */
export function norms({ W_dec, d_model, d_sae }: RawWeights): number[] {
  return Array.from(
    { length: d_sae },
    (_, i) => Math.hypot(...W_dec.subarray(i * d_model, (i + 1) * d_model)),
  );
}

/** Every vector encoded by a formula, and decoded: acts / factor · W_dec + b_dec, over a scale of the input. */
export function reference(
  raw: RawWeights,
  encode: Encode,
  options: { factor?: ArrayLike<number>; scale?: number } = {},
): Encoded {
  const { x, W_dec, b_dec, d_model } = raw;
  const { factor, scale = 1 } = options;
  const acts: number[] = [];
  const xHat: number[] = [];
  for (let start = 0; start < x.length; start += d_model) {
    const row = [...x.subarray(start, start + d_model)];
    const values = encode(row.map((value) => value * scale));
    acts.push(...values);
    for (let j = 0; j < d_model; j++) {
      const sum = values.reduce(
        (sum, value, i) =>
          sum + value / (factor?.[i] ?? 1) * W_dec[i * d_model + j]!,
        b_dec[j]!,
      );
      xHat.push(sum / scale);
    }
  }
  return { acts, xHat };
}

/** The same vectors by the weights that an SAE was read as, in float64. */
export async function encodedBy(
  sae: SaeFile,
  x: Float32Array,
): Promise<Encoded> {
  const weights = await sae.weights();
  const pre = linear(weights as unknown as RawWeights, { bias: weights.b_enc });
  const encode: Encode = (row) =>
    sae.architecture === "topk"
      ? topK(pre(row), sae.k!)
      : jumpRelu(pre(row), weights.threshold ?? new Float32Array(sae.d_sae));
  return reference({ ...weights, x } as unknown as RawWeights, encode);
}

/** Asserts that an SAE gives what a formula gives, to 1e-6 of the size of all, and fires where it fires. */
export async function assertSame(
  sae: SaeFile,
  raw: RawWeights,
  want: Encoded,
  label: string,
): Promise<void> {
  const got = await encodedBy(sae, raw.x);
  const fires = ({ acts }: Encoded) => acts.map((act) => act > 0);
  assert.deepEqual(fires(got), fires(want), label);
  const nFire = want.acts.filter((act) => act > 0).length;
  assert.ok(nFire > 0 && nFire < want.acts.length, `${label} tells nothing`);
  for (const name of ["acts", "xHat"] as const) {
    const off = Math.hypot(
      ...got[name].map((value, i) => value - want[name][i]!),
    );
    const share = off / Math.hypot(...want[name]);
    assert.ok(share < 1e-6, `${label}: ${name} are off by ${share}`);
  }
}

/** exp(r_mag)·u + b_mag where that and u + b_gate are above 0; u is without biases. */
export function gated(
  { r_mag, b_gate, b_enc }: RawWeights,
  u: number[],
): number[] {
  return u.map((value, i) =>
    value + b_gate[i]! > 0
      ? Math.max(Math.exp(r_mag[i]!) * value + b_enc[i]!, 0)
      : 0
  );
}

/** A value as the bytes of a JSON file. */
export function json(value: unknown): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(value));
}

/** Tensors of a safetensors file; matrices `[d_sae, d_model]` as they are or transposed. */
export async function safetensorsOf(
  tensors: Record<string, Float32Array>,
  { d_model, d_sae }: RawWeights,
  transposed: readonly string[] = [],
): Promise<Uint8Array> {
  const { files, write } = writableFolder();
  await write(
    "f",
    safetensorsChunks(
      Object.entries(tensors).map(([name, values]) => {
        const isMatrix = values.length === d_sae * d_model;
        const turned = transposed.includes(name);
        const stored = turned
          ? values.map((_, i) =>
            values[(i % d_sae) * d_model + Math.floor(i / d_sae)]!
          )
          : values;
        return {
          name,
          dtype: "F32" as const,
          shape: isMatrix
            ? (turned ? [d_model, d_sae] : [d_sae, d_model])
            : values.length === 1
            ? []
            : [values.length],
          bytes: new Uint8Array(stored.buffer),
        };
      }),
    ),
  );
  return files["f"]!;
}
