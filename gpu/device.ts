import {
  adapterName,
  chooseAdapter,
  type LimitName,
  LIMITS,
} from "./adapter.ts";
import { bytesOf, bytesPerRow, describeShape, type Dtype } from "./dtype.ts";
import type { Launch } from "./kernel.ts";
import { type Compiled, Pipelines } from "./pipeline.ts";
import { Profiler } from "./profile.ts";
import { Recorder, UniformPages } from "./record.ts";
import { planRowBlocks, Tensor } from "./tensor.ts";
import { adapterIdentity, Tuning } from "./tuning.ts";

/** Milliseconds after which the loss of a device is known. */
const LOSS_MS = 50;

/** Which GPU to open, and how much of it to use. */
export interface GpuOptions {
  /** Index (`"1"`) or a part of the name (`"nvidia"`, `"llvmpipe"`) among {@link listAdapters}; the first when absent. */
  readonly gpu?: string;
  /** Treat bindings as no larger than this many bytes; to test row windows on small data. */
  readonly maxBindingBytes?: number;
  /** Take the kernels of software drivers, or those of graphics cards, whatever the adapter is; to test either on the other. */
  readonly isSoftware?: boolean;
}

/** The device is gone: its driver was reset, or the card taken away. What was on it is lost; another device may be opened. */
export class GpuLostError extends Error {
  /** For error messages. */
  override readonly name = "GpuLostError";
}

/** Larger bindings read as empty on some drivers. */
const LARGEST_SAFE_BINDING = 2 ** 31 - 2 ** 16;

function checkReadAs(tensor: Tensor, dtypes: readonly Dtype[]): void {
  if (dtypes.includes(tensor.dtype)) return;
  throw new TypeError(
    `Cannot read ${tensor}: expected ${
      dtypes.join(" or ")
    }: take its bytes with readBytes`,
  );
}

/**
 * One WebGPU device: makes tensors, compiles kernels, submits work.
 * WebGPU reports errors late and drops the work that caused them; here the first
 * error is kept and thrown by the next {@link record} or {@link read}.
 */
export class Gpu implements Disposable {
  /** The WebGPU device. */
  readonly device: GPUDevice;
  /** Limits in force: the adapter's own, or smaller ones asked for in {@link GpuOptions}. */
  readonly limits: Readonly<Record<LimitName, number>>;
  /** The adapter's name. */
  readonly name: string;
  /** Whether the adapter runs on the CPU, or counts as such by {@link GpuOptions}: it wants other kernel variants then. */
  readonly isSoftware: boolean;
  /** Where launches find their uniforms; for {@link Recorder}. */
  readonly uniformPages: UniformPages;
  /** What was found out by timing on this adapter. */
  readonly tuning: Tuning;
  /** Memory that recordings use for a moment, by label; for {@link Recorder.scratch}. */
  readonly scratch: Map<string, Tensor> = new Map();
  /** Times every launch while set; see {@link startProfile}. */
  profiler: Profiler | undefined;
  #allocatedBytes = 0;
  #peakBytes = 0;
  #failure: Error | undefined;
  #closed = false;
  #recording: string | undefined;
  readonly #checks = new Set<Promise<void>>();
  readonly #pipelines: Pipelines;

  private constructor(
    adapter: GPUAdapter,
    device: GPUDevice,
    options: GpuOptions,
  ) {
    this.device = device;
    this.uniformPages = new UniformPages(device);
    this.#pipelines = new Pipelines(device);
    this.name = adapterName(adapter);
    this.tuning = new Tuning(adapterIdentity(adapter.info));
    this.isSoftware = options.isSoftware ?? adapter.info.isFallbackAdapter ??
      false;
    const binding = Math.min(
      device.limits.maxStorageBufferBindingSize,
      device.limits.maxBufferSize,
      LARGEST_SAFE_BINDING,
      options.maxBindingBytes ?? Infinity,
    );
    const limits = Object.fromEntries(
      LIMITS.map((name) => [name, device.limits[name]]),
    );
    this.limits = { ...limits, maxStorageBufferBindingSize: binding } as Record<
      LimitName,
      number
    >;
    device.addEventListener("uncapturederror", (event) => {
      this.#fail(
        `GPU error: ${(event as GPUUncapturedErrorEvent).error.message}`,
      );
    });
    device.lost.then(({ reason, message }) => {
      if (this.#closed) return;
      // Whatever failed before it, failed because of it.
      this.#failure = new GpuLostError(
        `GPU "${this.name}" was lost (${reason}): ${message}: start again`,
      );
    });
  }

  /**
   * Opens a device with the adapter's full limits.
   * @throws {Error} If there is no adapter; says what to install.
   * @throws {RangeError} If `options.gpu` names none.
   */
  static async open(options: GpuOptions = {}): Promise<Gpu> {
    const adapter = await chooseAdapter(options.gpu);
    const requiredLimits = Object.fromEntries(
      LIMITS.map((name) => [name, adapter.limits[name]]),
    );
    const requiredFeatures: GPUFeatureName[] =
      adapter.features.has("timestamp-query") ? ["timestamp-query"] : [];
    const device = await adapter.requestDevice({
      requiredLimits,
      requiredFeatures,
    });
    return new Gpu(adapter, device, options);
  }

  /** Bytes of all tensors that are alive. */
  get allocatedBytes(): number {
    return this.#allocatedBytes;
  }

  /** The most bytes that tensors have taken at once. */
  get peakBytes(): number {
    return this.#peakBytes;
  }

  /**
   * Makes a tensor of zeros, owned by the caller. One that is larger than a
   * binding is split into row blocks.
   * @throws {RangeError} If a size is not a positive integer, or one row exceeds a binding.
   */
  tensor(label: string, dtype: Dtype, shape: readonly number[]): Tensor {
    const what = `${label}: ${describeShape(dtype, shape)}`;
    const most = this.limits.maxStorageBufferBindingSize;
    const rowsPerBlock = planRowBlocks(what, dtype, shape, most);
    const nRows = shape[0]!;
    const rowBytes = bytesPerRow(dtype, shape);
    const blocks: { buffer: GPUBuffer; offset: number; nRows: number }[] = [];
    for (let row = 0; row < nRows; row += rowsPerBlock) {
      const rows = Math.min(rowsPerBlock, nRows - row);
      const size = Math.ceil(rows * rowBytes / 4) * 4;
      const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.INDIRECT |
        GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;
      this.device.pushErrorScope("out-of-memory");
      const buffer = this.device.createBuffer({ label, size, usage });
      this.#watch(this.device.popErrorScope(), `Cannot make tensor ${what}`);
      blocks.push({ buffer, offset: 0, nRows: rows });
    }
    const bytes = nRows * rowBytes;
    this.#allocatedBytes += bytes;
    this.#peakBytes = Math.max(this.#peakBytes, this.#allocatedBytes);
    let alive = true;
    const release = () => {
      if (!alive) return;
      alive = false;
      this.#allocatedBytes -= bytes;
      for (const { buffer } of blocks) buffer.destroy();
    };
    return new Tensor({
      label,
      dtype,
      shape,
      blocks,
      rowsPerBlock,
      device: this.device,
      release,
    });
  }

  /**
   * Makes a tensor and fills it from host memory.
   * @throws {RangeError} As {@link tensor}, or if the values do not fill it.
   */
  upload(
    label: string,
    dtype: Dtype,
    shape: readonly number[],
    values: ArrayBufferView<ArrayBuffer>,
  ): Tensor {
    const nBytes = bytesOf(dtype, shape);
    if (values.byteLength !== nBytes) {
      throw new RangeError(
        `Cannot upload ${label}: ${
          describeShape(dtype, shape)
        }: expected ${nBytes} bytes: got ${values.byteLength}`,
      );
    }
    const tensor = this.tensor(label, dtype, shape);
    tensor.write(values);
    return tensor;
  }

  /** Makes an f32 tensor from numbers. */
  floats(
    label: string,
    shape: readonly number[],
    values: Float32Array<ArrayBuffer>,
  ): Tensor {
    return this.upload(label, "f32", shape, values);
  }

  /**
   * Records what `fill` launches and submits it, once.
   * @throws {Error} If earlier GPU work failed, naming its kernels, within another recording, or after the GPU was disposed of.
   */
  record(label: string, fill: (rec: Recorder) => void): void {
    this.throwIfFailed();
    if (this.#closed) {
      throw new Error(
        `Cannot record "${label}": GPU "${this.name}" was disposed of: open it again`,
      );
    }
    if (this.#recording !== undefined) {
      // Both would place their uniforms at the start of the same pages.
      throw new Error(
        `Cannot record "${label}" within "${this.#recording}": record one after the other`,
      );
    }
    this.#recording = label;
    const rec = new Recorder(this, label);
    this.device.pushErrorScope("validation");
    try {
      fill(rec);
      rec.submit();
    } finally {
      this.#recording = undefined;
      this.#watch(
        this.device.popErrorScope(),
        () =>
          `GPU error in "${label}" (kernels ${[...rec.launched].join(", ")})`,
      );
    }
  }

  /**
   * Reads an f32 tensor back. Settles no sooner than 10 ms under Deno: not for loops; see {@link ReadbackRing}.
   * @throws {TypeError} If the tensor has another type.
   */
  async read(tensor: Tensor): Promise<Float32Array<ArrayBuffer>> {
    checkReadAs(tensor, ["f32"]);
    const bytes = await this.readBytes(tensor);
    return new Float32Array(bytes.buffer);
  }

  /**
   * Reads a u32 or i32 tensor back as unsigned integers.
   * @throws {TypeError} If the tensor has another type.
   */
  async readInts(tensor: Tensor): Promise<Uint32Array<ArrayBuffer>> {
    checkReadAs(tensor, ["u32", "i32"]);
    return new Uint32Array((await this.readBytes(tensor)).buffer);
  }

  /** Reads a tensor's bytes back, a window at a time. */
  async readBytes(tensor: Tensor): Promise<Uint8Array<ArrayBuffer>> {
    const bytes = new Uint8Array(tensor.byteLength);
    for (const { tensor: part, start } of tensor.windows()) {
      const { buffer, offset = 0, size = 0 } = part.binding;
      const staging = this.device.createBuffer({
        label: `read ${tensor.label}`,
        size,
        usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST,
      });
      try {
        this.record(
          `read ${tensor.label}`,
          (rec) => rec.copyBuffer(buffer, offset, staging, 0, size),
        );
        await staging.mapAsync(GPUMapMode.READ).catch(async (error) => {
          throw await this.reasonOf(error);
        });
        const rows = new Uint8Array(staging.getMappedRange());
        bytes.set(rows.subarray(0, part.byteLength), start * tensor.rowBytes);
      } finally {
        staging.destroy();
        await this.settled();
      }
    }
    return bytes;
  }

  /** Waits until the errors of all work submitted so far are known, and throws the first. */
  async settled(): Promise<void> {
    while (this.#checks.size > 0) await Promise.all(this.#checks);
    this.throwIfFailed();
  }

  /** Why an operation failed: the GPU's first error, or its loss, which is told only a moment after what it fails; else the operation's own error. */
  async reasonOf(error: unknown): Promise<unknown> {
    if (!this.#failure) {
      await new Promise((resolve) => setTimeout(resolve, LOSS_MS));
    }
    return this.#failure ?? error;
  }

  /** Throws the first error that WebGPU has reported, if any. */
  throwIfFailed(): void {
    if (this.#failure) throw this.#failure;
  }

  /**
   * Times every kernel launch until {@link Profiler.stop}. Each launch gets its own pass.
   * @throws {Error} If the adapter has no timestamp queries.
   */
  startProfile(): Profiler {
    if (!this.device.features.has("timestamp-query")) {
      throw new Error(
        `Cannot time kernels: "${this.name}" has no timestamp queries`,
      );
    }
    this.profiler = new Profiler(this);
    return this.profiler;
  }

  /** The compiled pipeline of a launch; compiled on first use and kept. */
  pipeline(launch: Launch): Compiled {
    return this.#pipelines.of(
      launch,
      (scope) => this.#watch(scope, `Cannot compile kernel "${launch.name}"`),
    );
  }

  /** Destroys the device and all its memory. */
  [Symbol.dispose](): void {
    this.#closed = true;
    this.device.destroy();
  }

  #watch(scope: Promise<GPUError | null>, what: string | (() => string)): void {
    const check = scope.then((error) => {
      if (error) {
        this.#fail(
          `${typeof what === "string" ? what : what()}: ${error.message}`,
        );
      }
    }, () => {
      // A device that was lost answers no questions; that it was is told apart.
    }).finally(() => this.#checks.delete(check));
    this.#checks.add(check);
  }

  #fail(message: string): void {
    if (!this.#closed) this.#failure ??= new Error(message);
  }
}
