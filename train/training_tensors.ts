/**
 * The GPU memory of an SAE in training.
 * @module
 */
import type { Gpu, Tensor } from "../gpu/mod.ts";
import { type FeatureWindow, featureWindows } from "../core/sae.ts";
import { featureParts } from "../kernels/sae_feature_sums.ts";
import { STATUS_WORDS } from "../kernels/sae_step_status.ts";
import { squareParts } from "../kernels/sum_squares.ts";
import type { SaeParams } from "./init.ts";

/** Sizes and constants of a trainer. */
export interface TrainerConfig {
  /** Size of the inputs. */
  readonly d_model: number;
  /** Number of features. */
  readonly d_sae: number;
  /** Vectors of a batch. */
  readonly batch: number;
  /** What packed rows are multiplied by. */
  readonly inputScale: number;
  /** Largest global norm of the gradient. */
  readonly clipNorm: number;
  /** Decay rates of Adam's moments. */
  readonly betas: readonly [number, number];
  /** Added to the root of Adam's second moment. */
  readonly eps: number;
}

/** Names of the parameters, in the order of their updates. */
export const PARAMETERS: readonly (keyof SaeParams)[] = [
  "W_enc",
  "b_enc",
  "W_dec",
  "b_dec",
];

/** A parameter with what Adam keeps of it; four tensors of one shape. */
export interface Parameter {
  /** The values. */
  readonly W: Tensor;
  /** Gradient of the last step, before clipping. */
  readonly grad: Tensor;
  /** First moment. */
  readonly m: Tensor;
  /** Second moment. */
  readonly v: Tensor;
}

/** Bytes of GPU memory that training takes. */
export function trainingBytes(
  { d_model, d_sae, batch }: TrainerConfig,
): number {
  // Parameters, gradients and two moments; activations and their gradient; rows packed, scaled and the error.
  const perFeature = 4 * (2 * d_model + 1) + 2 * batch + 3;
  return 4 * d_sae * perFeature + 10 * batch * d_model + 16 * d_model;
}

/** Owns the tensors of one trainer. */
export class TrainingTensors implements Disposable {
  /** Parameters by name. */
  readonly parameters: Readonly<Record<keyof SaeParams, Parameter>>;
  /** The runs of features that are worked on at once. */
  readonly windows: readonly FeatureWindow[];
  /** bf16 `[B, d_model]`: a batch as shards store it. */
  readonly rows: Tensor;
  /** f32 `[B, d_model]`: the batch, scaled. */
  readonly x: Tensor;
  /** f32 `[B, d_model]`: x̂ − x. */
  readonly err: Tensor;
  /** f32 `[B, window]`, one for each window. */
  readonly acts: readonly Tensor[];
  /** f32 `[B · largest window]`: gradient of the pre-activations; the windows take turns. */
  readonly dpre: Tensor;
  /** f32 `[d_sae]`: ‖W_dec_i‖. */
  readonly norms: Tensor;
  /** f32 `[d_sae]`: factor of W_dec_i in the gradient of the L1 term. */
  readonly l1Coef: Tensor;
  /** u32 `[d_sae]` */
  readonly tokensSinceFired: Tensor;
  /** f32 `[n_partials, 4]`: parts of gradient², err², acts·norm and the number of acts > 0. */
  readonly partials: Tensor;
  /** u32 `[8]`, of `sae_step_status`. */
  readonly status: Tensor;
  readonly #owned = new DisposableStack();

  /**
   * Takes the memory; parameters and moments are 0.
   * @throws {RangeError} If the activations of 64 features exceed a binding.
   */
  constructor(gpu: Gpu, { d_model, d_sae, batch }: TrainerConfig) {
    const own = (
      label: string,
      shape: readonly number[],
      dtype: "f32" | "u32" | "bf16" = "f32",
    ): Tensor => this.#owned.use(gpu.tensor(label, dtype, shape));
    const parameter = (name: string, shape: readonly number[]): Parameter => ({
      W: own(name, shape),
      grad: own(`grad.${name}`, shape),
      m: own(`m.${name}`, shape),
      v: own(`v.${name}`, shape),
    });
    try {
      this.parameters = {
        W_enc: parameter("W_enc", [d_sae, d_model]),
        b_enc: parameter("b_enc", [d_sae]),
        W_dec: parameter("W_dec", [d_sae, d_model]),
        b_dec: parameter("b_dec", [d_model]),
      };
      this.windows = featureWindows(gpu, this.parameters.W_enc.W, batch);
      const sizes = this.windows.map(({ start, end }) => end - start);
      this.rows = own("rows", [batch, d_model], "bf16");
      this.x = own("x", [batch, d_model]);
      this.err = own("err", [batch, d_model]);
      this.acts = sizes.map((size) => own("acts", [batch, size]));
      this.dpre = own("dpre", [batch * Math.max(...sizes)]);
      this.norms = own("norms", [d_sae]);
      this.l1Coef = own("l1_coef", [d_sae]);
      this.tokensSinceFired = own("tokens_since_fired", [d_sae], "u32");
      this.partials = own("partials", [this.#countPartials(), 4]);
      this.status = own("status", [STATUS_WORDS], "u32");
    } catch (error) {
      this.#owned.dispose();
      throw error;
    }
  }

  #countPartials(): number {
    let n = 0;
    for (const { start, end } of this.windows) n += featureParts(end - start);
    const grads = PARAMETERS.map((name) => this.parameters[name].grad);
    for (const tensor of [this.err, ...grads]) {
      for (const { tensor: part } of tensor.windows()) {
        n += squareParts(flat(part).nRows);
      }
    }
    return n;
  }

  /** Frees the memory. */
  [Symbol.dispose](): void {
    this.#owned.dispose();
  }
}

/** A bindable tensor as one row of numbers. */
export function flat(tensor: Tensor): Tensor {
  return tensor.reshape([tensor.shape.reduce((n, size) => n * size, 1)]);
}
