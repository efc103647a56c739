/**
 * The one form that every SAE is read into, and what is folded into its weights to get there:
 * pre = x·W_encᵀ + b_enc, acts = architecture(pre), x̂ = acts·W_dec + b_dec. Sums are taken in float64.
 * @module
 */
import type { SaeLayout, SaeMetadata } from "./sae_config.ts";
import { type FeatureRows, floatTensor, floatVector } from "./sae_rows.ts";
import type { TensorFile } from "./tensor_file.ts";

/** A vector of an SAE that is read, or computed once, when it is asked for. */
export type LazyVector = () => Promise<Float64Array<ArrayBuffer>>;

/** An SAE whose weights are read by runs of features. */
export interface SaeForm {
  /** The layout of its files. */
  readonly layout: SaeLayout;
  /** Size of the residual stream. */
  readonly d_model: number;
  /** Number of features. */
  readonly d_sae: number;
  /** What is known of it beside its weights. */
  readonly metadata: SaeMetadata;
  /** Where it reads and writes, as its files call it, if that is no place on the residual stream. */
  readonly elsewhere?: string;
  /** Encoder directions `[d_sae, d_model]`. */
  readonly W_enc: FeatureRows;
  /** Encoder biases `[d_sae]`. */
  readonly b_enc: LazyVector;
  /** Decoder directions `[d_sae, d_model]`. */
  readonly W_dec: FeatureRows;
  /** Decoder bias `[d_model]`. */
  readonly b_dec: LazyVector;
  /** What an activation must exceed, `[d_sae]`; of jumprelu only. */
  readonly threshold?: LazyVector;
}

/** Bytes of rows that are in memory at once. */
const BLOCK_BYTES = 16 * 2 ** 20;

/**
 * A stored vector of this length.
 * @throws {TypeError} If it is no float tensor, or of another length.
 * @throws {RangeError} If there is no such tensor.
 */
export function storedVector(
  file: TensorFile,
  name: string,
  length: number,
): LazyVector {
  floatTensor(file, name, [length]);
  return once(async () =>
    new Float64Array(await floatVector(file, name, length))
  );
}

/** A vector of one value. */
export function constantVector(length: number, value: number): LazyVector {
  return once(() => Promise.resolve(new Float64Array(length).fill(value)));
}

/** Vectors combined element by element. */
function combined(
  vectors: readonly LazyVector[],
  combine: (...values: number[]) => number,
): LazyVector {
  return once(async () => {
    const read = await Promise.all(vectors.map((vector) => vector()));
    return read[0]!.map((_, i) => combine(...read.map((values) => values[i]!)));
  });
}

/** Rows that are multiplied by a factor of their feature. */
function scaledRows(
  rows: FeatureRows,
  factors: LazyVector,
): FeatureRows {
  return {
    name: rows.name,
    async rows(start, end): Promise<Float32Array<ArrayBuffer>> {
      const values = await rows.rows(start, end);
      const scale = await factors();
      const d_model = values.length / (end - start);
      for (let i = 0; i < values.length; i++) {
        const feature = start + Math.floor(i / d_model);
        values[i]! *= scale[feature]!;
        if (Number.isFinite(values[i])) continue;
        throw new RangeError(
          `Cannot read ${rows.name}: expected finite values once all is folded: got ${
            values[i]
          } for feature ${feature}: the file is damaged: fetch it again`,
        );
      }
      return values;
    },
  };
}

/** The L2 norm of every decoder row. */
export function decoderNorms({ W_dec, d_model, d_sae }: SaeForm): LazyVector {
  return perFeature(W_dec, d_model, d_sae, (row) => {
    let sum = 0;
    for (const value of row) sum += value * value;
    return Math.sqrt(sum);
  });
}

/** Folds an encoder that reads x - bias: b_enc - W_enc·bias. */
export function foldInputBias(form: SaeForm, bias: LazyVector): SaeForm {
  const { W_enc, d_model, d_sae } = form;
  const moved = once(async () => {
    const center = await bias();
    const dots = perFeature(W_enc, d_model, d_sae, (row) => {
      let sum = 0;
      for (let j = 0; j < row.length; j++) sum += row[j]! * center[j]!;
      return sum;
    });
    return await combined([form.b_enc, dots], (b, dot) => b - dot)();
  });
  return { ...form, b_enc: moved };
}

/** Multiplies activations by a factor of their feature, and lets the decoder undo it; a factor of 0 counts as 1. */
export function scaleFeatures(form: SaeForm, factors: LazyVector): SaeForm {
  const { W_enc, b_enc, W_dec, threshold } = form;
  const safe = combined([factors], (factor) => factor || 1);
  const times = (vector: LazyVector): LazyVector =>
    combined([vector, safe], (value, factor) => value * factor);
  return {
    ...form,
    W_enc: scaledRows(W_enc, safe),
    b_enc: times(b_enc),
    W_dec: scaledRows(W_dec, combined([safe], (factor) => 1 / factor)),
    ...(threshold && { threshold: times(threshold) }),
  };
}

/** Folds activations that were multiplied by `scale` before they were read. */
export function foldInputScale(form: SaeForm, scale: number): SaeForm {
  const { W_enc, W_dec, b_dec, d_sae, metadata } = form;
  return {
    ...form,
    metadata: { ...metadata, inputScale: metadata.inputScale * scale },
    W_enc: scaledRows(W_enc, constantVector(d_sae, scale)),
    W_dec: scaledRows(W_dec, constantVector(d_sae, 1 / scale)),
    b_dec: combined([b_dec], (value) => value / scale),
  };
}

/**
 * Turns gates into thresholds. With u = x·Wᵀ the feature's value is m = exp(r_mag)·u + b_mag where it is above 0 and
 * the gate u + b_gate is open, so where m exceeds both 0 and b_mag - exp(r_mag)·b_gate.
 * @param form The encoder W, with any b_enc.
 */
export function foldGates(
  form: SaeForm,
  gates: { r_mag: LazyVector; b_mag: LazyVector; b_gate: LazyVector },
): SaeForm {
  const { r_mag, b_mag, b_gate } = gates;
  return {
    ...form,
    metadata: { ...form.metadata, architecture: "jumprelu" },
    W_enc: scaledRows(form.W_enc, combined([r_mag], Math.exp)),
    b_enc: b_mag,
    threshold: combined(
      [r_mag, b_mag, b_gate],
      (r, mag, gate) => Math.max(0, mag - Math.exp(r) * gate),
    ),
  };
}

/** One number of every row. */
function perFeature(
  rows: FeatureRows,
  d_model: number,
  d_sae: number,
  measure: (row: Float32Array) => number,
): LazyVector {
  return once(async () => {
    const values = new Float64Array(d_sae);
    const step = Math.max(1, Math.floor(BLOCK_BYTES / (4 * d_model)));
    for (let start = 0; start < d_sae; start += step) {
      const end = Math.min(start + step, d_sae);
      const block = await rows.rows(start, end);
      for (let i = start; i < end; i++) {
        const first = (i - start) * d_model;
        values[i] = measure(block.subarray(first, first + d_model));
      }
    }
    return values;
  });
}

/** Remembers what a function gave, but for an error. */
function once(read: LazyVector): LazyVector {
  let known: Float64Array<ArrayBuffer> | undefined;
  return async () => known ??= await read();
}
