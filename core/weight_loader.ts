/**
 * Tensors of a checkpoint on their way to the GPU: checked, a piece at a time, as they are stored or quantized.
 * @module
 */
import {
  bytesOf,
  bytesPerRow,
  type Dtype,
  type Gpu,
  isQuantized,
  type QuantizedDtype,
  type Tensor,
} from "../gpu/mod.ts";
import { quantize } from "../kernels/quantize.ts";
import type { Checkpoint, TensorInfo } from "./safetensors.ts";

/** What of a checkpoint to put on the GPU. */
export interface LoadOptions {
  /** Blocks to load, from the first; all when absent. */
  readonly nLayers?: number;
  /** Whether logits will be wanted; true when absent. */
  readonly withHead?: boolean;
  /**
   * Precision of the rotary frequencies: f32 as `from_pretrained` computes them, the default, or
   * bf16 as a Hugging Face model has them once `model.to(torch.bfloat16)` has rounded its buffers.
   */
  readonly rope?: "f32" | "bf16";
  /**
   * Rounds matrices to blocks of integers as they are loaded: "q8" all of them to 8 bits, "q4" those of blocks to 4 and
   * embedding and head, which decide more of the quality, to 8. They stay in the file's type when absent.
   */
  readonly quantize?: QuantizedDtype | undefined;
  /** Called as bytes of files arrive on the GPU. */
  readonly onProgress?: (bytesDone: number, bytesTotal: number) => void;
}

/** Bytes that travel from file to GPU at once. */
const PIECE_BYTES = 8 * 2 ** 20;
/** Bytes after which the GPU is waited for: until it has taken them, the driver holds copies. */
const QUEUED_BYTES = PIECE_BYTES / 2;

const GPU_TYPES = { F32: "f32", BF16: "bf16", F16: "f16" } as const;

/**
 * A tensor of a checkpoint.
 * @throws {TypeError} If it is missing, of another shape, or no float tensor, naming file, tensor, and both shapes.
 */
export function expectTensor(
  checkpoint: Pick<Checkpoint, "info" | "fileOf">,
  name: string,
  shape: readonly number[],
): TensorInfo {
  const info = checkpoint.info(name);
  if (info.dtype in GPU_TYPES && info.shape.join() === shape.join()) {
    return info;
  }
  throw new TypeError(
    `Cannot load "${
      checkpoint.fileOf(name)
    }": tensor "${name}" must be F32, BF16 or F16 [${
      shape.join(", ")
    }], as config.json tells: got ${info.dtype} [${
      info.shape.join(", ")
    }]: check that the files of this folder belong together`,
  );
}

/** Type that a matrix of a checkpoint, which {@link expectTensor} has found to be of floats, has on the GPU. */
export function weightDtype(
  { name, dtype }: Pick<TensorInfo, "name" | "dtype">,
  quantize: QuantizedDtype | undefined,
): Dtype {
  const type = GPU_TYPES[dtype as keyof typeof GPU_TYPES];
  const isBlocks = name.startsWith("model.layers.");
  return quantize === "q4" && !isBlocks ? "q8" : quantize ?? type;
}

/** Puts a checkpoint's tensors on the GPU, with names and shapes checked. */
export class WeightLoader {
  readonly #gpu: Gpu;
  readonly #checkpoint: Checkpoint;
  readonly #owned: DisposableStack;
  readonly #quantize: QuantizedDtype | undefined;
  readonly #onProgress: NonNullable<LoadOptions["onProgress"]>;
  readonly #quantized: string[] = []; // names, by their part
  readonly #notFinite: Tensor; // u32 [1]: the first part that has NaN or infinity
  #piece: Tensor | undefined;
  #bytesDone = 0;
  #bytesTotal = 0;
  #bytesQueued = 0;

  /** Tensors go to `owned`, which frees them. */
  constructor(
    gpu: Gpu,
    checkpoint: Checkpoint,
    owned: DisposableStack,
    options: LoadOptions,
  ) {
    this.#gpu = gpu;
    this.#checkpoint = checkpoint;
    this.#owned = owned;
    this.#quantize = options.quantize;
    this.#onProgress = options.onProgress ?? (() => {});
    this.#notFinite = owned.use(gpu.tensor("not_finite", "u32", [1]));
    this.#notFinite.write(Uint32Array.of(NO_PART));
  }

  /**
   * Checks that every tensor is there with the shape and a float type; progress counts their bytes.
   * @throws {TypeError} If one is not, naming file, tensor, and both shapes.
   */
  expect(
    shapes: Iterable<readonly [name: string, shape: readonly number[]]>,
  ): void {
    for (const [name, shape] of shapes) {
      const { start, end } = expectTensor(this.#checkpoint, name, shape);
      this.#bytesTotal += end - start;
    }
  }

  /**
   * Matrices with equal row lengths as one, rows one after the other, in their packed type or quantized.
   * @throws {TypeError} If they have different types.
   * @throws {RangeError} If memory or a binding does not suffice for its rows.
   */
  async matrix(label: string, ...names: string[]): Promise<Tensor> {
    const infos = names.map((name) => this.#checkpoint.info(name));
    const dtype = infos[0]!.dtype;
    const odd = infos.find((info) => info.dtype !== dtype);
    if (odd) {
      throw new TypeError(
        `Cannot load "${
          this.#checkpoint.fileOf(odd.name)
        }": tensor "${odd.name}" must be ${dtype} like "${
          names[0]
        }": got ${odd.dtype}: check that the files of this folder belong together`,
      );
    }
    const nRows = infos.reduce((sum, info) => sum + info.shape[0]!, 0);
    const shape = [nRows, infos[0]!.shape[1]!];
    const type = weightDtype(infos[0]!, this.#quantize);
    const tensor = this.#owned.use(this.#gpu.tensor(label, type, shape));
    if (isQuantized(type)) await this.#quantizeInto(tensor, infos);
    else await this.#copyInto(tensor, infos);
    return tensor;
  }

  async #copyInto(
    tensor: Tensor,
    infos: readonly TensorInfo[],
  ): Promise<void> {
    let row = 0;
    for (const info of infos) {
      for await (const bytes of this.#pieces(info)) {
        tensor.write(bytes, row);
        row += bytes.byteLength / tensor.rowBytes;
        this.#gpu.device.queue.submit([]);
      }
    }
  }

  /** Neither host nor GPU ever holds more than a piece of the unquantized matrix. */
  async #quantizeInto(
    target: Tensor,
    infos: readonly TensorInfo[],
  ): Promise<void> {
    const dtype = weightDtype(infos[0]!, undefined);
    const rowBytes = bytesPerRow(dtype, target.shape);
    let row = 0;
    for (const info of infos) {
      const part = this.#quantized.push(info.name) - 1;
      for await (const bytes of this.#pieces(info)) {
        const source = this.#pieceOf(dtype, [
          bytes.byteLength / rowBytes,
          target.shape[1]!,
        ]);
        source.write(bytes);
        this.#gpu.record(`quantize ${info.name}`, (rec) =>
          quantize(rec, {
            source,
            target,
            row,
            notFinite: this.#notFinite,
            part,
          }));
        row += source.nRows;
      }
    }
  }

  /**
   * A matrix's bytes by whole rows, an even number of them but for the last: pieces start at whole words.
   * What is made of each must have been submitted when the next is asked for.
   */
  async *#pieces(
    { name, shape, start, end }: TensorInfo,
  ): AsyncGenerator<Uint8Array<ArrayBuffer>> {
    const nRows = shape[0]!;
    const step = this.#rowsOfPiece((end - start) / nRows);
    for (let row = 0; row < nRows; row += step) {
      const last = Math.min(row + step, nRows);
      const bytes = await this.#checkpoint.bytes(name, row, last);
      const { byteLength } = bytes;
      yield bytes;
      bytes.buffer.transfer(0); // frees it now: the collector does not count it
      this.#count(byteLength);
      this.#bytesQueued += byteLength;
      if (this.#bytesQueued < QUEUED_BYTES) continue;
      await this.#gpu.device.queue.onSubmittedWorkDone();
      this.#gpu.throwIfFailed();
      this.#bytesQueued = 0;
    }
  }

  /** Vectors one after the other, widened to f32. */
  async vector(label: string, ...names: string[]): Promise<Tensor> {
    const parts = [];
    for (const name of names) {
      parts.push(await this.#checkpoint.floats(name));
      const { start, end } = this.#checkpoint.info(name);
      this.#count(end - start);
    }
    const values = new Float32Array(
      parts.reduce((sum, part) => sum + part.length, 0),
    );
    let at = 0;
    for (const part of parts) {
      values.set(part, at);
      at += part.length;
    }
    return this.#owned.use(this.#gpu.floats(label, [values.length], values));
  }

  /** Memory for rows on the GPU before they are quantized: the same for all. */
  #pieceOf(dtype: Dtype, shape: readonly number[]): Tensor {
    const nWords = Math.ceil(bytesOf(dtype, shape) / 4);
    if (!this.#piece || this.#piece.nRows < nWords) {
      this.#piece?.[Symbol.dispose]();
      this.#piece = this.#owned.use(this.#gpu.tensor("piece", "u32", [nWords]));
    }
    return this.#piece.as("piece", dtype, shape);
  }

  /** An even number of rows of a matrix that travel at once. */
  #rowsOfPiece(rowBytes: number): number {
    const { maxStorageBufferBindingSize: most } = this.#gpu.limits;
    const bytes = Math.min(PIECE_BYTES, most);
    return Math.max(2, 2 * Math.floor(bytes / rowBytes / 2));
  }

  /**
   * Waits until everything is on the GPU.
   * @throws {Error} If the GPU failed.
   * @throws {RangeError} If a weight that was quantized is NaN or infinite, naming file and tensor.
   */
  async finish(): Promise<void> {
    this.#piece?.[Symbol.dispose]();
    if (this.#quantized.length > 0) {
      const [part] = await this.#gpu.readInts(this.#notFinite);
      if (part !== NO_PART) {
        const name = this.#quantized[part!]!;
        throw new RangeError(
          `Cannot load "${
            this.#checkpoint.fileOf(name)
          }": expected finite weights in tensor "${name}": got NaN or infinity: the file is damaged: fetch it again`,
        );
      }
    }
    await this.#gpu.settled();
  }

  #count(bytes: number): void {
    this.#bytesDone += bytes;
    this.#onProgress(this.#bytesDone, this.#bytesTotal);
  }
}

/** No part has a weight that is not finite. */
const NO_PART = 2 ** 32 - 1;
