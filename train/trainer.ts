/**
 * Training of an SAE on the GPU: forward, backward by hand, Adam. A batch is
 * one submit, and nothing is read back in between.
 * @module
 */
import type { Safetensors, TensorToWrite } from "../core/safetensors.ts";
import {
  type Gpu,
  ReadbackRing,
  type Recorder,
  type Tensor,
} from "../gpu/mod.ts";
import { windowOf } from "../core/sae.ts";
import { rowNorms } from "../kernels/row_norms.ts";
import { unpackBatch } from "../kernels/unpack_batch.ts";
import { STATUS_WORDS } from "../kernels/sae_step_status.ts";
import type { SaeParams } from "./init.ts";
import { readMetrics, type StatusTag, type StepMetrics } from "./metrics.ts";
import type { StepValues } from "./schedule.ts";
import { recordBatch, recordUpdate } from "./training_step.ts";
import {
  fullConfig,
  type FullTrainerConfig,
  type TrainerConfig,
  TrainingTensors,
} from "./training_tensors.ts";

export {
  type FullTrainerConfig,
  largestBatch,
  PARAMETERS,
  type TrainerConfig,
  trainingBytes,
  trainingMemory,
} from "./training_tensors.ts";

/**
 * A batch `[batch, d_model]`: packed bf16 rows, which are scaled on the GPU, f32 rows
 * that are already scaled, or commands that fill x with rows times the scale.
 */
export type TrainerBatch =
  | Uint16Array<ArrayBuffer>
  | Float32Array<ArrayBuffer>
  | { fill(rec: Recorder, x: Tensor, scale: number): void };

/** Options of {@link SaeTrainer.step}. */
export interface StepOptions {
  /** Whether {@link SaeTrainer.takeMetrics} shall give this step's. */
  readonly metrics?: boolean;
  /** Tokens without firing after which features are counted as dead for the metrics; not counted when absent. */
  readonly deadWindow?: number;
}

/** An SAE in training; owns its parameters, moments and activations. */
export class SaeTrainer implements Disposable {
  /** Sizes and constants. */
  config: FullTrainerConfig;
  readonly #gpu: Gpu;
  readonly #owned = new DisposableStack();
  readonly #tensors: TrainingTensors;
  readonly #ring: ReadbackRing<StatusTag>;
  #step = 0;

  /**
   * Takes memory and uploads the parameters.
   * @throws {RangeError} If the parameters are not of the config's sizes, or a batch exceeds a binding.
   */
  constructor(gpu: Gpu, config: TrainerConfig, params: SaeParams) {
    this.#gpu = gpu;
    this.config = fullConfig(config);
    this.#tensors = this.#owned.use(new TrainingTensors(gpu, this.config));
    this.#ring = this.#owned.use(
      new ReadbackRing(gpu, this.#tensors.status),
    );
    try {
      this.writeParams(params);
    } catch (error) {
      this.#owned.dispose();
      throw error;
    }
  }

  /** Activations of a batch that the lists of the sparse path have room for. */
  get room(): number {
    return this.#tensors.lists.capacity;
  }

  /** Steps done. */
  get steps(): number {
    return this.#step;
  }

  /**
   * Submits one step.
   * @param batches As many as the config accumulates; one need not be in a list.
   * @throws {RangeError} If there is another number of batches, or one has another size.
   */
  step(
    batches: TrainerBatch | readonly TrainerBatch[],
    values: StepValues,
    options: StepOptions = {},
  ): void {
    const list = isList(batches) ? batches : [batches];
    const { accumulate, architecture } = this.config;
    if (list.length !== accumulate) {
      throw new RangeError(
        `Cannot train on ${list.length} batches: expected ${accumulate}, as many as are accumulated`,
      );
    }
    const step = this.#step;
    for (const [batch, rows] of list.entries()) {
      this.#gpu.record(`step ${step}`, (rec) => {
        this.#fill(rec, rows);
        const isPacked = rows instanceof Uint16Array;
        recordBatch(rec, this.#tensors, this.config, {
          ...values,
          batch,
          isPacked,
        });
        if (batch < accumulate - 1) return;
        const { deadWindow } = options;
        recordUpdate(rec, this.#tensors, this.config, {
          ...values,
          step,
          ...(deadWindow === undefined ? {} : { deadWindow }),
        });
        if (!options.metrics) return;
        this.#ring.copy(rec, {
          ...values,
          step,
          countsDead: deadWindow !== undefined,
          isL0: architecture === "jumprelu",
        });
      });
    }
    this.#step++;
  }

  #fill(rec: Recorder, rows: TrainerBatch): void {
    const { batch, d_model, inputScale } = this.config;
    const { rows: packed, x } = this.#tensors;
    if (!isRows(rows)) {
      rows.fill(rec, x, inputScale);
      return;
    }
    if (rows.length !== batch * d_model) {
      throw new RangeError(
        `Cannot train on a batch: expected ${batch} rows of ${d_model} values: got ${rows.length} values`,
      );
    }
    if (rows instanceof Uint16Array) {
      packed.write(rows);
      unpackBatch.run(rec, { rows: packed, x }, { scale: inputScale });
    } else {
      x.write(rows);
    }
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

  /** Reads the gradients of the last step back, as they were before clipping; 0 where none reached a feature. */
  async gradients(): Promise<SaeParams> {
    const grads = await this.#read("grad");
    const touched = await this.#gpu.readInts(this.#tensors.touched);
    const { d_model } = this.config;
    for (const [i, mark] of touched.entries()) {
      if (mark !== 0) continue;
      grads.W_enc.fill(0, i * d_model, (i + 1) * d_model);
      grads.W_dec.fill(0, i * d_model, (i + 1) * d_model);
      grads.b_enc[i] = 0;
      if (grads.log_threshold) grads.log_threshold[i] = 0;
    }
    return grads;
  }

  /** Reads back acts `[batch, d_sae]` and x̂ `[batch, d_model]` of the last batch. */
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
    const { x, err } = await this.errors();
    return { acts, reconstruction: err.map((value, i) => value + x[i]!) };
  }

  /** Reads back the last batch's x and x̂ − x, f32 `[batch, d_model]`. */
  async errors(): Promise<
    { x: Float32Array<ArrayBuffer>; err: Float32Array<ArrayBuffer> }
  > {
    const x = await this.#gpu.read(this.#tensors.x);
    const err = await this.#gpu.read(this.#tensors.err);
    return { x, err };
  }

  /** Reads back how many tokens each feature has seen since it last fired. */
  tokensSinceFired(): Promise<Uint32Array<ArrayBuffer>> {
    return this.#gpu.readInts(this.#tensors.tokensSinceFired);
  }

  /** Reads back the norms of all rows of W_enc and W_dec, f32 `[d_sae]`. */
  async rowNorms(): Promise<{ encoder: Float32Array; decoder: Float32Array }> {
    const { parameters } = this.#tensors;
    using norms = this.#gpu.tensor("row norms", "f32", [this.config.d_sae]);
    const read = async (name: "W_enc" | "W_dec"): Promise<Float32Array> => {
      this.#gpu.record(`norms of ${name}`, (rec) => {
        for (const { tensor: W, start, end } of parameters[name].W.windows()) {
          rowNorms.run(rec, { W, norms: windowOf(norms, { start, end }) });
        }
      });
      return await this.#gpu.read(norms);
    };
    return { encoder: await read("W_enc"), decoder: await read("W_dec") };
  }

  /** Reads back what one feature reads and writes, f32 `[d_model]` each. */
  async featureRows(
    i: number,
  ): Promise<{ W_enc: Float32Array; W_dec: Float32Array }> {
    const { W_enc, W_dec } = this.#tensors.parameters;
    // Rows start at a binding's alignment in groups of 64.
    const first = i - i % 64;
    const read = async ({ W }: { W: Tensor }): Promise<Float32Array> => {
      const end = Math.min(first + 64, W.nRows);
      const rows = await this.#gpu.read(W.rows(first, end));
      const { d_model } = this.config;
      return rows.slice((i - first) * d_model, (i - first + 1) * d_model);
    };
    return { W_enc: await read(W_enc), W_dec: await read(W_dec) };
  }

  /** Reads b_dec back, f32 `[d_model]`. */
  decoderBias(): Promise<Float32Array<ArrayBuffer>> {
    return this.#gpu.read(this.#tensors.parameters.b_dec.W);
  }

  /** Moving average of the smallest activation that topk or batchtopk keeps, in scaled inputs; undefined before the first. */
  async smallestKept(): Promise<number | undefined> {
    const [value] = await this.#gpu.read(this.#tensors.smallestKept);
    return value! > 0 ? value! : undefined;
  }

  /**
   * Runs only the forward pass and gradients of a batch: parameters and moments stay, but features age by a batch.
   * What it leaves is read by {@link errors}.
   */
  probe(rows: TrainerBatch): void {
    this.#gpu.record("probe", (rec) => {
      this.#fill(rec, rows);
      recordBatch(rec, this.#tensors, this.config, {
        lambda: 0,
        lr: 0,
        batch: 0,
        isPacked: rows instanceof Uint16Array,
      });
    });
  }

  /**
   * Replaces features: their parameters, with moments of 0 and as if they had just fired.
   * @param features Which, ascending.
   * @param rows Their parameters, in that order; b_dec is not looked at.
   */
  replaceFeatures(features: readonly number[], rows: SaeParams): void {
    const { d_model } = this.config;
    for (const [n, i] of features.entries()) {
      for (const [name, { W, m, v, scales }] of this.#tensors.named()) {
        if (name === "b_dec") continue;
        const width = W.shape.length === 2 ? d_model : 1;
        W.write(rows[name]!.slice(n * width, (n + 1) * width), i);
        // 8-bit codes of 0 are moments of 0 only with scales of 0.
        for (const moment of scales ? [m, v, scales] : [m, v]) {
          moment.write(new Uint8Array(moment.rowBytes), i);
        }
      }
      this.#tensors.tokensSinceFired.write(new Uint32Array(1), i);
    }
  }

  /** Takes the sparse path up to this many entries from now on, as far as there is room. */
  set sparseEntries(sparseEntries: number) {
    this.config = fullConfig({ ...this.config, sparseEntries });
  }

  /** Sets everything but the parameters back to the start. */
  reset(): void {
    this.#tensors.clearState();
    this.#step = 0;
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
    const { tokensSinceFired, smallestKept, selection } = this.#tensors;
    const all = this.#tensors.named().flatMap(([, { W, m, v, scales }]) =>
      scales ? [W, m, v, scales] : [W, m, v]
    );
    return [...all, tokensSinceFired, ...(selection ? [smallestKept] : [])];
  }

  /**
   * Replaces the parameters; moments stay.
   * @throws {RangeError} If they are not of the config's sizes.
   */
  writeParams(values: SaeParams): void {
    for (const [name, { W: tensor }] of this.#tensors.named()) {
      if (values[name]?.byteLength !== tensor.byteLength) {
        throw new RangeError(
          `Cannot set ${tensor}: expected as many values: got ${
            values[name]?.length ?? "none"
          }`,
        );
      }
      tensor.write(values[name]);
    }
  }

  async #read(which: "W" | "grad"): Promise<SaeParams> {
    const read = (name: keyof SaeParams): Promise<Float32Array<ArrayBuffer>> =>
      this.#gpu.read(this.#tensors.parameters[name]![which]);
    return {
      W_enc: await read("W_enc"),
      b_enc: await read("b_enc"),
      W_dec: await read("W_dec"),
      b_dec: await read("b_dec"),
      ...(this.#tensors.parameters.log_threshold && {
        log_threshold: await read("log_threshold"),
      }),
    };
  }

  /** Frees the memory. */
  [Symbol.dispose](): void {
    this.#owned.dispose();
  }
}

function isList(
  batches: TrainerBatch | readonly TrainerBatch[],
): batches is readonly TrainerBatch[] {
  return Array.isArray(batches);
}

function isRows(
  batch: TrainerBatch,
): batch is Uint16Array<ArrayBuffer> | Float32Array<ArrayBuffer> {
  return ArrayBuffer.isView(batch);
}

async function* readWindows(
  gpu: Gpu,
  tensor: Tensor,
): AsyncGenerator<Uint8Array> {
  for (const { tensor: part } of tensor.windows()) {
    yield await gpu.readBytes(part);
  }
}
