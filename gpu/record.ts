import type { Gpu } from "./device.ts";
import type { Gate, GatedLaunch } from "./gate.ts";
import { describeLaunch, type Launch } from "./kernel.ts";
import { bytesOf, type Dtype } from "./dtype.ts";
import { BINDING_ALIGNMENT, type Tensor } from "./tensor.ts";

const UNIFORM_PAGE_BYTES = 65_536;

/** One buffer of uniforms, and what it is filled with at the next submit. */
export interface UniformPage {
  /** On the GPU. */
  readonly buffer: GPUBuffer;
  /** What is written to it before the commands are submitted. */
  readonly bytes: Uint8Array<ArrayBuffer>;
}

/** Where launches find their uniforms: buffers that every submit fills anew from the start. */
export class UniformPages {
  readonly #device: GPUDevice;
  readonly #pages: UniformPage[] = [];

  /** No pages yet; they are made when needed and kept. */
  constructor(device: GPUDevice) {
    this.#device = device;
  }

  /** The n-th page. */
  at(n: number): UniformPage {
    while (this.#pages.length <= n) {
      const buffer = this.#device.createBuffer({
        label: "uniforms",
        size: UNIFORM_PAGE_BYTES,
        usage: GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST,
      });
      const bytes = new Uint8Array(UNIFORM_PAGE_BYTES);
      this.#pages.push({ buffer, bytes });
    }
    return this.#pages[n]!;
  }
}

/**
 * Collects kernel launches and copies into one command buffer.
 * {@link Gpu.record} makes it and submits it once. Consecutive launches share a
 * compute pass: WebGPU orders them, and each sees what the ones before it wrote.
 */
export class Recorder {
  /** The device that the commands are for. */
  readonly gpu: Gpu;
  readonly #encoder: GPUCommandEncoder;
  #pass: GPUComputePassEncoder | undefined;
  #uniformBytes = 0;
  readonly #launched = new Set<string>();
  readonly #afterSubmit: (() => void)[] = [];
  #gate: { readonly gate: Gate; readonly launch: GatedLaunch } | undefined;
  readonly #gates = new Set<Gate>();

  /** For {@link Gpu.record}. */
  constructor(gpu: Gpu, label: string) {
    this.gpu = gpu;
    this.#encoder = gpu.device.createCommandEncoder({ label });
  }

  /** Names of the kernels recorded so far, for error messages. */
  get launched(): ReadonlySet<string> {
    return this.#launched;
  }

  /**
   * Records one kernel launch; {@link Kernel.run} is the typed way.
   * @throws {RangeError} If the launch needs more workgroups than the adapter allows.
   */
  launch(launch: Launch): void {
    const most = this.gpu.limits.maxComputeWorkgroupsPerDimension;
    if (
      launch.workgroups.some((n) => !Number.isInteger(n) || n < 1 || n > most)
    ) {
      throw new RangeError(
        `Cannot launch kernel ${describeLaunch(launch)}: workgroups [${
          launch.workgroups.join(", ")
        }] must be 1 to ${most}`,
      );
    }
    const { pipeline, layout } = this.gpu.pipeline(launch);
    const entries: GPUBindGroupEntry[] = launch.tensors.map((
      tensor,
      binding,
    ) => ({
      binding,
      resource: tensor.binding,
    }));
    if (launch.uniforms) {
      entries.push({
        binding: entries.length,
        resource: this.#placeUniforms(launch.uniforms),
      });
    }
    const group = this.gpu.device.createBindGroup({
      label: launch.name,
      layout,
      entries,
    });
    const pass = this.#openPass(launch.name);
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, group);
    if (this.#gate) {
      const { gate, launch: when } = this.#gate;
      const { buffer, offset } = gate.add(launch.workgroups, when);
      pass.dispatchWorkgroupsIndirect(buffer, offset);
    } else {
      pass.dispatchWorkgroups(...launch.workgroups);
    }
    this.#launched.add(launch.name);
  }

  /** Records launches that take place only if the gate is opened for their branch; copies and clears are not gated. */
  gated(gate: Gate, launch: GatedLaunch, fill: () => void): void {
    this.#gate = { gate, launch };
    this.#gates.add(gate);
    try {
      fill();
    } finally {
      this.#gate = undefined;
    }
  }

  /**
   * Copies `nRows` rows between tensors with equal row sizes.
   * @throws {RangeError} If rows differ in size, lie out of range, span buffers, or (16-bit types) split a word.
   */
  copy(
    from: Tensor,
    to: Tensor,
    options: { fromRow?: number; toRow?: number; nRows?: number } = {},
  ): void {
    const { fromRow = 0, toRow = 0, nRows = from.nRows } = options;
    const nBytes = nRows * from.rowBytes;
    // The word that pads a tensor's end may be copied onto another's.
    const isWhole = nBytes % 4 === 0 ||
      (fromRow + nRows === from.nRows && toRow + nRows === to.nRows);
    if (
      from.rowBytes !== to.rowBytes || fromRow < 0 || toRow < 0 ||
      fromRow + nRows > from.nRows || toRow + nRows > to.nRows || !isWhole ||
      fromRow * from.rowBytes % 4 !== 0 || toRow * to.rowBytes % 4 !== 0
    ) {
      throw new RangeError(
        `Cannot copy ${nRows} rows of ${from} from ${fromRow} to row ${toRow} of ${to}`,
      );
    }
    const [source, target] = [from.binding, to.binding];
    this.copyBuffer(
      source.buffer,
      (source.offset ?? 0) + fromRow * from.rowBytes,
      target.buffer,
      (target.offset ?? 0) + toRow * to.rowBytes,
      Math.ceil(nBytes / 4) * 4,
    );
  }

  /** Copies bytes between buffers; offsets and size are multiples of 4. */
  copyBuffer(
    from: GPUBuffer,
    fromByte: number,
    to: GPUBuffer,
    toByte: number,
    nBytes: number,
  ): void {
    this.#closePass();
    this.#encoder.copyBufferToBuffer(from, fromByte, to, toByte, nBytes);
  }

  /** Sets all of a tensor's bytes to zero. */
  clear(tensor: Tensor): void {
    this.#closePass();
    for (const { tensor: part } of tensor.windows()) {
      const { buffer, offset, size } = part.binding;
      this.#encoder.clearBuffer(buffer, offset ?? 0, size ?? 0);
    }
  }

  /**
   * Memory for a moment: what earlier launches of the same label left in it is gone. It belongs to the device, is kept
   * for the next time, and grows.
   */
  scratch(label: string, dtype: Dtype, shape: readonly number[]): Tensor {
    const nWords = Math.ceil(bytesOf(dtype, shape) / 4);
    const before = this.gpu.scratch.get(label);
    let words = before;
    if (!words || words.nRows < nWords) {
      words = this.gpu.tensor(`scratch ${label}`, "u32", [nWords]);
      this.gpu.scratch.set(label, words);
      // Commands that were recorded may still use the smaller one.
      if (before) this.afterSubmit(() => before[Symbol.dispose]());
    }
    return words.as(label, dtype, shape);
  }

  /** Calls `then` once the commands are submitted. */
  afterSubmit(then: () => void): void {
    this.#afterSubmit.push(then);
  }

  /** Ends recording and submits; for {@link Gpu.record}. */
  submit(): void {
    this.#closePass();
    for (const gate of this.#gates) gate.flush();
    this.gpu.profiler?.resolve(this.#encoder);
    const { queue } = this.gpu.device;
    for (let start = 0, page = 0; start < this.#uniformBytes; page++) {
      const { buffer, bytes } = this.gpu.uniformPages.at(page);
      const size = Math.min(bytes.byteLength, this.#uniformBytes - start);
      queue.writeBuffer(buffer, 0, bytes, 0, size);
      start += size;
    }
    queue.submit([this.#encoder.finish()]);
    for (const then of this.#afterSubmit) then();
  }

  #openPass(kernel: string): GPUComputePassEncoder {
    const timestampWrites = this.gpu.profiler?.next(kernel);
    if (timestampWrites) {
      this.#closePass();
      this.#pass = this.#encoder.beginComputePass({ timestampWrites });
    }
    this.#pass ??= this.#encoder.beginComputePass();
    return this.#pass;
  }

  #closePass(): void {
    this.#pass?.end();
    this.#pass = undefined;
  }

  #placeUniforms(values: ArrayBuffer): GPUBufferBinding {
    const page = this.gpu.uniformPages.at(
      Math.floor(this.#uniformBytes / UNIFORM_PAGE_BYTES),
    );
    const offset = this.#uniformBytes % UNIFORM_PAGE_BYTES;
    page.bytes.set(new Uint8Array(values), offset);
    this.#uniformBytes += Math.ceil(values.byteLength / BINDING_ALIGNMENT) *
      BINDING_ALIGNMENT;
    return { buffer: page.buffer, offset, size: values.byteLength };
  }
}
