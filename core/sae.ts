/**
 * The sparse autoencoder on the GPU: x̂ = acts·W_dec + b_dec, where acts are of pre = x·W_encᵀ + b_enc
 * - relu: what is above 0
 * - topk: the k largest above 0 of each row, with all ties of the k-th
 * - jumprelu: what is above a threshold of its feature; batchtopk is one of these once it is trained
 * @module
 */
import type { Gpu, Recorder, Tensor } from "../gpu/mod.ts";
import { matmul } from "../kernels/matmul.ts";
import {
  ACCUMULATE,
  DECODE,
  DECODE_ERROR,
  ENCODE,
} from "../kernels/sae_epilogues.ts";
import { ENCODE_JUMPRELU } from "../kernels/sae_inference_epilogues.ts";
import type { SaeArchitecture } from "./sae_config.ts";

/** Features `[start, end)`, few enough that their weights and activations fit into one binding each. */
export interface FeatureWindow {
  /** First feature. */
  readonly start: number;
  /** One past the last feature. */
  readonly end: number;
}

/** The weights of an SAE in GPU memory, all f32. */
export interface SaeTensors {
  /** Encoder directions `[d_sae, d_model]`; row i reads feature i. */
  readonly W_enc: Tensor;
  /** Encoder biases `[d_sae]`. */
  readonly b_enc: Tensor;
  /** Decoder directions `[d_sae, d_model]`; row i is what feature i writes. */
  readonly W_dec: Tensor;
  /** Decoder bias `[d_model]`. */
  readonly b_dec: Tensor;
  /** What an activation must exceed, `[d_sae]`; of jumprelu only. */
  readonly threshold?: Tensor | undefined;
}

/** Where an SAE's weights are read from, by runs of features; row i belongs to feature i. */
export interface SaeRows {
  /** Size of the residual stream. */
  readonly d_model: number;
  /** Number of features. */
  readonly d_sae: number;
  /** Function from pre-activations to activations; `relu` when absent. */
  readonly architecture?: SaeArchitecture;
  /** Features that fire on a vector; needed for topk. */
  readonly k?: number | undefined;
  /** f32 `[d_sae]`, what an activation must exceed; needed for jumprelu. */
  threshold?(): Promise<Float32Array<ArrayBuffer> | undefined>;
  /** f32 `[end - start, d_model]`: what features `[start, end)` read. */
  rowsOfEncoder(
    start: number,
    end: number,
  ): Promise<Float32Array<ArrayBuffer>>;
  /** f32 `[end - start, d_model]`: what features `[start, end)` write. */
  rowsOfDecoder(
    start: number,
    end: number,
  ): Promise<Float32Array<ArrayBuffer>>;
  /** f32 `[d_sae]` */
  b_enc(): Promise<Float32Array<ArrayBuffer>>;
  /** f32 `[d_model]` */
  b_dec(): Promise<Float32Array<ArrayBuffer>>;
}

/** Windows start at multiples of this, so that rows of any length start at a binding's alignment. */
const WINDOW_STEP = 64;
/** Bytes of weights that are in host memory at once while loading. */
const LOAD_BYTES = 16 * 2 ** 20;

/**
 * The fewest windows over the rows of `W` that leave every `[T, window]` tensor bindable.
 * @throws {RangeError} If T activations of 64 features exceed a binding: take fewer tokens.
 */
export function featureWindows(
  gpu: Gpu,
  W: Tensor,
  T: number,
): FeatureWindow[] {
  const most = gpu.limits.maxStorageBufferBindingSize / (4 * T);
  const step = Math.floor(most / WINDOW_STEP) * WINDOW_STEP;
  if (step === 0 && W.nRows > most) {
    throw new RangeError(
      `Cannot encode ${T} tokens at once: expected at most ${
        Math.floor(most * T / WINDOW_STEP)
      }, as the adapter binds ${gpu.limits.maxStorageBufferBindingSize} bytes: take smaller batches`,
    );
  }
  const windows: FeatureWindow[] = [];
  for (const block of W.windows()) {
    const size = block.end - block.start;
    const rows = size <= most ? size : step;
    for (let start = block.start; start < block.end; start += rows) {
      windows.push({ start, end: Math.min(start + rows, block.end) });
    }
  }
  return windows;
}

/** Features `[start, end)` of a tensor with one row, or one element, a feature. */
export function windowOf(tensor: Tensor, window: FeatureWindow): Tensor {
  const isWhole = window.start === 0 && window.end === tensor.nRows;
  return isWhole ? tensor : tensor.rows(window.start, window.end);
}

/**
 * Records acts = relu(x·W_encᵀ + b_enc), or with thresholds what exceeds them: x f32 `[T, d_model]`, acts f32 `[T, window]`.
 * Of topk these are the activations to select from.
 */
export function encodeWindow(
  rec: Recorder,
  { W_enc, b_enc, threshold }: Pick<
    SaeTensors,
    "W_enc" | "b_enc" | "threshold"
  >,
  x: Tensor,
  acts: Tensor,
  window: FeatureWindow,
): void {
  const bias = windowOf(b_enc, window);
  matmul(rec, {
    layout: "mk,nk",
    A: x,
    B: windowOf(W_enc, window),
    C: acts,
    epilogue: threshold
      ? {
        spec: ENCODE_JUMPRELU,
        tensors: { b_enc: bias, threshold: windowOf(threshold, window) },
      }
      : { spec: ENCODE, tensors: { b_enc: bias } },
  });
}

/**
 * Records x̂ = acts·W_dec + b_dec, or x̂ − x where x is given: acts f32 `[T, window]`, xHat and x f32 `[T, d_model]`.
 * The window from feature 0 writes xHat, the others add to it.
 */
export function decodeWindow(
  rec: Recorder,
  { W_dec, b_dec }: SaeTensors,
  acts: Tensor,
  xHat: Tensor,
  window: FeatureWindow,
  x?: Tensor,
): void {
  const first = x
    ? { spec: DECODE_ERROR, tensors: { b_dec, x } }
    : { spec: DECODE, tensors: { b_dec } };
  matmul(rec, {
    layout: "mk,kn",
    A: acts,
    B: windowOf(W_dec, window),
    C: xHat,
    epilogue: window.start === 0 ? first : { spec: ACCUMULATE, tensors: {} },
  });
}

/** An SAE with weights in GPU memory; owns its tensors. `SaeEncoder` runs it. */
export class Sae implements SaeTensors, Disposable {
  /** The device that holds the weights. */
  readonly gpu: Gpu;
  /** Size of the residual stream. */
  readonly d_model: number;
  /** Number of features. */
  readonly d_sae: number;
  /** Function from pre-activations to activations. */
  readonly architecture: SaeArchitecture;
  /** Features that fire on a vector; of topk only. */
  readonly k: number | undefined;
  /** What an activation must exceed, f32 `[d_sae]`; of jumprelu only. */
  readonly threshold: Tensor | undefined;
  /** Encoder directions, f32 `[d_sae, d_model]`; row i reads feature i. */
  readonly W_enc: Tensor;
  /** Encoder biases, f32 `[d_sae]`. */
  readonly b_enc: Tensor;
  /** Decoder directions, f32 `[d_sae, d_model]`; row i is what feature i writes. */
  readonly W_dec: Tensor;
  /** Decoder bias, f32 `[d_model]`. */
  readonly b_dec: Tensor;
  readonly #owned = new DisposableStack();

  private constructor(gpu: Gpu, weights: SaeRows) {
    const { d_model, d_sae, architecture = "relu" } = weights;
    this.gpu = gpu;
    this.d_model = d_model;
    this.d_sae = d_sae;
    this.architecture = architecture;
    this.k = architecture === "topk" ? weights.k : undefined;
    const tensor = (label: string, shape: readonly number[]): Tensor =>
      this.#owned.use(gpu.tensor(label, "f32", shape));
    this.W_enc = tensor("W_enc", [d_sae, d_model]);
    this.b_enc = tensor("b_enc", [d_sae]);
    this.W_dec = tensor("W_dec", [d_sae, d_model]);
    this.b_dec = tensor("b_dec", [d_model]);
    this.threshold = architecture === "jumprelu"
      ? tensor("threshold", [d_sae])
      : undefined;
  }

  /**
   * Loads the weights, a bounded run of features at a time.
   * @throws {TypeError} If k of topk or the thresholds of jumprelu are missing.
   */
  static async load(gpu: Gpu, weights: SaeRows): Promise<Sae> {
    const { d_model, d_sae, k } = weights;
    if (weights.architecture === "topk" && !(k && k > 0)) {
      throw new TypeError(
        `Cannot load an SAE of topk: expected k from 1: got ${k}`,
      );
    }
    const sae = new Sae(gpu, weights);
    try {
      if (sae.threshold) {
        const threshold = await weights.threshold?.();
        if (!threshold) {
          throw new TypeError(
            "Cannot load an SAE of jumprelu: expected thresholds: got none",
          );
        }
        sae.threshold.write(threshold);
      }
      const step = Math.max(1, Math.floor(LOAD_BYTES / (4 * d_model)));
      for (let start = 0; start < d_sae; start += step) {
        const end = Math.min(start + step, d_sae);
        sae.W_enc.write(await weights.rowsOfEncoder(start, end), start);
        sae.W_dec.write(await weights.rowsOfDecoder(start, end), start);
      }
      sae.b_enc.write(await weights.b_enc());
      sae.b_dec.write(await weights.b_dec());
      return sae;
    } catch (error) {
      sae[Symbol.dispose]();
      throw error;
    }
  }

  /** The windows in which to encode and decode T tokens; one, where bindings are large enough. */
  windows(T: number): FeatureWindow[] {
    return featureWindows(this.gpu, this.W_enc, T);
  }

  /** Frees the weights. */
  [Symbol.dispose](): void {
    this.#owned.dispose();
  }
}
