import type { Gpu } from "./device.ts";
import type { Recorder } from "./record.ts";
import type { Tensor } from "./tensor.ts";

/** One copy on its way. */
interface Copy<Tag> {
  readonly tag: Tag;
  /** What it brought; undefined until then. */
  bytes: ArrayBuffer | undefined;
  arrival: Promise<void> | undefined;
}

/**
 * Copies of small tensors that arrive later. A loop records {@link copy} in its
 * step and goes on; values come back in order through {@link take}, and only
 * {@link drain} waits. Staging buffers are reused, and added when all are under way.
 */
export class ReadbackRing<Tag> implements Disposable {
  readonly #gpu: Gpu;
  readonly #tensor: Tensor;
  readonly #idle: GPUBuffer[] = [];
  readonly #all: GPUBuffer[] = [];
  /** Copies not yet taken, oldest first. */
  #copies: Copy<Tag>[] = [];
  #failure: unknown;

  /** A ring for one tensor, which must fit into one binding. */
  constructor(gpu: Gpu, tensor: Tensor) {
    this.#gpu = gpu;
    this.#tensor = tensor;
  }

  /** Copies recorded and not yet arrived. */
  get pending(): number {
    return this.#copies.filter(({ bytes }) => bytes === undefined).length;
  }

  /** Records a copy of the tensor as it is at this point of the commands. */
  copy(rec: Recorder, tag: Tag): void {
    const { buffer, offset = 0, size = 0 } = this.#tensor.binding;
    const staging = this.#idle.pop() ?? this.#newStaging(size);
    rec.copyBuffer(buffer, offset, staging, 0, size);
    rec.afterSubmit(() => {
      const copy: Copy<Tag> = { tag, bytes: undefined, arrival: undefined };
      this.#copies.push(copy);
      copy.arrival = this.#receive(staging, copy);
    });
  }

  /** What has arrived since the last call, oldest first. */
  take(): { tag: Tag; bytes: ArrayBuffer }[] {
    const next = this.#copies.findIndex(({ bytes }) => bytes === undefined);
    return this.#copies.splice(0, next < 0 ? this.#copies.length : next)
      .map(({ tag, bytes }) => ({ tag, bytes: bytes! }));
  }

  /** Waits until no more than `most` copies are under way; throws the GPU's first error. */
  async drain(most = 0): Promise<void> {
    while (this.pending > most) {
      await this.#copies.find(({ bytes }) => bytes === undefined)!.arrival;
    }
    await this.#gpu.settled();
    if (this.#failure) throw await this.#gpu.reasonOf(this.#failure);
  }

  /** Frees the staging buffers; copies under way never arrive. */
  [Symbol.dispose](): void {
    for (const staging of this.#all) staging.destroy();
  }

  async #receive(staging: GPUBuffer, copy: Copy<Tag>): Promise<void> {
    try {
      await staging.mapAsync(GPUMapMode.READ);
      copy.bytes = staging.getMappedRange().slice(0);
      staging.unmap();
      this.#idle.push(staging);
    } catch (error) {
      // The device was lost, or the ring disposed of: drain() tells who still waits.
      this.#failure ??= error;
      this.#copies = this.#copies.filter((other) => other !== copy);
    }
  }

  #newStaging(size: number): GPUBuffer {
    const staging = this.#gpu.device.createBuffer({
      label: `read ${this.#tensor.label}`,
      size,
      usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST,
    });
    this.#all.push(staging);
    return staging;
  }
}
