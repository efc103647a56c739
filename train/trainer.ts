/**
 * Training of an SAE on the GPU: forward, backward by hand, Adam. One step is
 * one submit, and nothing is read back in between.
 * @module
 */
import type { Safetensors, TensorToWrite } from "../core/safetensors.ts";
import { type Gpu, ReadbackRing, type Tensor } from "../gpu/mod.ts";
import { unpackBatch } from "../kernels/unpack_batch.ts";
import { STATUS_WORDS } from "../kernels/sae_step_status.ts";
import type { SaeParams } from "./init.ts";
import { readMetrics, type StepMetrics } from "./metrics.ts";
import type { StepValues } from "./schedule.ts";
import { recordStep } from "./training_step.ts";
import {
  PARAMETERS,
  type TrainerConfig,
  TrainingTensors,
} from "./training_tensors.ts";

export {
  PARAMETERS,
  type TrainerConfig,
  trainingBytes,
} from "./training_tensors.ts";

/** An SAE in training; owns its parameters, moments and activations. */
export class SaeTrainer implements Disposable {
  /** Sizes and constants. */
  readonly config: TrainerConfig;
  readonly #gpu: Gpu;
  readonly #owned = new DisposableStack();
  readonly #tensors: TrainingTensors;
  readonly #ring: ReadbackRing<StepValues & { step: number }>;
  #step = 0;

  /**
   * Takes memory and uploads the parameters.
   * @throws {RangeError} If the parameters are not of the config's sizes, or a batch exceeds a binding.
   */
  constructor(gpu: Gpu, config: TrainerConfig, params: SaeParams) {
    this.#gpu = gpu;
    this.config = config;
    this.#tensors = this.#owned.use(new TrainingTensors(gpu, config));
    this.#ring = this.#owned.use(
      new ReadbackRing(gpu, this.#tensors.status),
    );
    try {
      this.#writeParams(params);
    } catch (error) {
      this.#owned.dispose();
      throw error;
    }
  }

  /** Steps done. */
  get steps(): number {
    return this.#step;
  }

  /**
   * Submits one step.
   * @param rows A batch `[batch, d_model]`: packed bf16 rows, which are scaled here, or f32 rows that are already scaled.
   * @param options.metrics Whether {@link takeMetrics} shall give this step's.
   * @throws {RangeError} If the batch has another size.
   */
  step(
    rows: Uint16Array<ArrayBuffer> | Float32Array<ArrayBuffer>,
    values: StepValues,
    options: { readonly metrics?: boolean } = {},
  ): void {
    const { batch, d_model, inputScale } = this.config;
    const { rows: packed, x } = this.#tensors;
    if (rows.length !== batch * d_model) {
      throw new RangeError(
        `Cannot train on a batch: expected ${batch} rows of ${d_model} values: got ${rows.length} values`,
      );
    }
    const step = this.#step;
    const isPacked = rows instanceof Uint16Array;
    (isPacked ? packed : x).write(rows);
    this.#gpu.record(`step ${step}`, (rec) => {
      if (isPacked) {
        unpackBatch.run(rec, { rows: packed, x }, { scale: inputScale });
      }
      recordStep(rec, this.#tensors, this.config, { ...values, step });
      if (options.metrics) this.#ring.copy(rec, { ...values, step });
    });
    this.#step++;
  }

  /**
   * Metrics that have arrived since the last call, oldest first.
   * @throws {RangeError} If a step had a value that is not finite: names the step and the value.
   */
  takeMetrics(): StepMetrics[] {
    return this.#ring.take().map(({ tag, bytes }) => readMetrics(tag, bytes));
  }

  /**
   * Waits for all steps.
   * @throws {RangeError} If one had a value that is not finite, whether its metrics were asked for or not.
   */
  async assertFinite(): Promise<void> {
    const { buffer } = await this.#gpu.readBytes(this.#tensors.status);
    readMetrics({ step: this.#step - 1, lambda: 0, lr: 0 }, buffer);
  }

  /** Waits until at most `most` metrics are under way, so that a loop does not run ahead of the GPU. */
  async settle(most: number = 0): Promise<void> {
    await this.#ring.drain(most);
  }

  /** Reads the parameters back. */
  params(): Promise<SaeParams> {
    return this.#read("W");
  }

  /** Reads the gradients of the last step back, as they were before clipping. */
  gradients(): Promise<SaeParams> {
    return this.#read("grad");
  }

  /** Reads back acts `[batch, d_sae]` and x̂ `[batch, d_model]` of the last step. */
  async activations(): Promise<
    { acts: Float32Array; reconstruction: Float32Array }
  > {
    const { batch, d_sae } = this.config;
    const acts = new Float32Array(batch * d_sae);
    for (const [w, { start, end }] of this.#tensors.windows.entries()) {
      const part = await this.#gpu.read(this.#tensors.acts[w]!);
      for (let b = 0; b < batch; b++) {
        const row = part.subarray(b * (end - start), (b + 1) * (end - start));
        acts.set(row, b * d_sae + start);
      }
    }
    const x = await this.#gpu.read(this.#tensors.x);
    const err = await this.#gpu.read(this.#tensors.err);
    return { acts, reconstruction: err.map((value, i) => value + x[i]!) };
  }

  /** Reads back how many tokens each feature has seen since it last fired. */
  tokensSinceFired(): Promise<Uint32Array<ArrayBuffer>> {
    return this.#gpu.readInts(this.#tensors.tokensSinceFired);
  }

  /**
   * Everything that changes from step to step but the number of steps: enough to go on bit for bit.
   * The bytes are read from the GPU as they are written; take no step meanwhile.
   */
  stateTensors(): TensorToWrite[] {
    return this.#state.map((tensor) => ({
      name: tensor.label,
      dtype: tensor.dtype === "u32" ? "U32" : "F32",
      shape: tensor.shape,
      bytes: () => readWindows(this.#gpu, tensor),
    }));
  }

  /**
   * Goes back to a state after `steps` steps.
   * @throws {RangeError} If a tensor is missing or has another size: names it.
   */
  async restore(state: Safetensors, steps: number): Promise<void> {
    for (const { label, shape } of this.#state) {
      const stored = state.info(label).shape;
      if (stored.join() === shape.join()) continue;
      throw new RangeError(
        `Cannot resume from "${state.source.name}": expected tensor "${label}" of [${
          shape.join(", ")
        }]: got [${stored.join(", ")}]`,
      );
    }
    for (const tensor of this.#state) {
      for (const { start, end } of tensor.windows()) {
        tensor.write(await state.bytes(tensor.label, start, end), start);
      }
    }
    this.#tensors.status.write(new Uint32Array(STATUS_WORDS));
    this.#step = steps;
  }

  get #state(): Tensor[] {
    const { parameters, tokensSinceFired } = this.#tensors;
    const all = PARAMETERS.flatMap((name) => {
      const { W, m, v } = parameters[name];
      return [W, m, v];
    });
    return [...all, tokensSinceFired];
  }

  #writeParams(values: SaeParams): void {
    for (const name of PARAMETERS) {
      const tensor = this.#tensors.parameters[name].W;
      if (values[name].byteLength !== tensor.byteLength) {
        throw new RangeError(
          `Cannot set ${tensor}: expected as many values: got ${
            values[name].length
          }`,
        );
      }
      tensor.write(values[name]);
    }
  }

  async #read(which: "W" | "grad"): Promise<SaeParams> {
    const read = (name: keyof SaeParams): Promise<Float32Array<ArrayBuffer>> =>
      this.#gpu.read(this.#tensors.parameters[name][which]);
    return {
      W_enc: await read("W_enc"),
      b_enc: await read("b_enc"),
      W_dec: await read("W_dec"),
      b_dec: await read("b_dec"),
    };
  }

  /** Frees the memory. */
  [Symbol.dispose](): void {
    this.#owned.dispose();
  }
}

async function* readWindows(
  gpu: Gpu,
  tensor: Tensor,
): AsyncGenerator<Uint8Array> {
  for (const { tensor: part } of tensor.windows()) {
    yield await gpu.readBytes(part);
  }
}
