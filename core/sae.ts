/**
 * The sparse autoencoder on the GPU: acts = relu(x·W_encᵀ + b_enc), x̂ = acts·W_dec + b_dec.
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
}

/** Where an SAE's weights are read from, by runs of features; row i belongs to feature i. */
export interface SaeRows {
  /** Size of the residual stream. */
  readonly d_model: number;
  /** Number of features. */
  readonly d_sae: number;
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

/** Records acts = relu(x·W_encᵀ + b_enc): x f32 `[T, d_model]`, acts f32 `[T, window]`. */
export function encodeWindow(
  rec: Recorder,
  { W_enc, b_enc }: SaeTensors,
  x: Tensor,
  acts: Tensor,
  window: FeatureWindow,
): void {
  matmul(rec, {
    layout: "mk,nk",
    A: x,
    B: windowOf(W_enc, window),
    C: acts,
    epilogue: { spec: ENCODE, tensors: { b_enc: windowOf(b_enc, window) } },
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

/** An SAE with weights in GPU memory; owns its tensors. */
export class Sae implements SaeTensors, Disposable {
  /** The device that holds the weights. */
  readonly gpu: Gpu;
  /** Size of the residual stream. */
  readonly d_model: number;
  /** Number of features. */
  readonly d_sae: number;
  /** Encoder directions, f32 `[d_sae, d_model]`; row i reads feature i. */
  readonly W_enc: Tensor;
  /** Encoder biases, f32 `[d_sae]`. */
  readonly b_enc: Tensor;
  /** Decoder directions, f32 `[d_sae, d_model]`; row i is what feature i writes. */
  readonly W_dec: Tensor;
  /** Decoder bias, f32 `[d_model]`. */
  readonly b_dec: Tensor;
  readonly #owned = new DisposableStack();

  private constructor(gpu: Gpu, d_model: number, d_sae: number) {
    this.gpu = gpu;
    this.d_model = d_model;
    this.d_sae = d_sae;
    const tensor = (label: string, shape: readonly number[]): Tensor =>
      this.#owned.use(gpu.tensor(label, "f32", shape));
    this.W_enc = tensor("W_enc", [d_sae, d_model]);
    this.b_enc = tensor("b_enc", [d_sae]);
    this.W_dec = tensor("W_dec", [d_sae, d_model]);
    this.b_dec = tensor("b_dec", [d_model]);
  }

  /** Loads the weights, a bounded run of features at a time. */
  static async load(gpu: Gpu, weights: SaeRows): Promise<Sae> {
    const { d_model, d_sae } = weights;
    const sae = new Sae(gpu, d_model, d_sae);
    try {
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

  /** Records acts = relu(x·W_encᵀ + b_enc) for all features or a window of them; see {@link encodeWindow}. */
  encode(
    rec: Recorder,
    x: Tensor,
    acts: Tensor,
    window: FeatureWindow = { start: 0, end: this.d_sae },
  ): void {
    encodeWindow(rec, this, x, acts, window);
  }

  /** Records x̂ = acts·W_dec + b_dec for all features, or what a window of them adds to it; see {@link decodeWindow}. */
  decode(
    rec: Recorder,
    acts: Tensor,
    xHat: Tensor,
    window: FeatureWindow = { start: 0, end: this.d_sae },
  ): void {
    decodeWindow(rec, this, acts, xHat, window);
  }

  /** Frees the weights. */
  [Symbol.dispose](): void {
    this.#owned.dispose();
  }
}
