import {
  bytesOf,
  bytesPerRow,
  describeShape,
  type Dtype,
  elementCount,
  isQuantized,
} from "./dtype.ts";

/** Offsets of bindings are multiples of this on every adapter (WebGPU's default limit). */
export const BINDING_ALIGNMENT = 256;

/**
 * Rows to put into each buffer of a tensor so that no buffer exceeds `maxBytes`;
 * all of them where they fit.
 * @throws {RangeError} If a size is not a positive integer, or a few rows exceed `maxBytes` already.
 */
export function planRowBlocks(
  what: string,
  dtype: Dtype,
  shape: readonly number[],
  maxBytes: number,
): number {
  if (
    shape.length === 0 ||
    shape.some((size) => !Number.isSafeInteger(size) || size < 1)
  ) {
    throw new RangeError(
      `Cannot make tensor ${what}: every size must be a positive integer`,
    );
  }
  const rowBytes = bytesPerRow(dtype, shape);
  if (shape[0]! * rowBytes <= maxBytes) return shape[0]!;
  const step = BINDING_ALIGNMENT / 4;
  const rowsPerBlock = Math.floor(maxBytes / rowBytes / step) * step;
  if (rowsPerBlock > 0) return rowsPerBlock;
  throw new RangeError(
    `Cannot make tensor ${what}: ${step} rows of ${rowBytes} bytes exceed the adapter's binding limit of ${maxBytes} bytes`,
  );
}

/** One GPU buffer that holds whole rows of a tensor. */
interface RowBlock {
  readonly buffer: GPUBuffer;
  /** Where the block's first row starts in the buffer, in bytes. */
  readonly offset: number;
  readonly nRows: number;
}

/** A part of a tensor that fits into one binding: rows `[start, end)`. */
export interface RowWindow {
  /** The rows. */
  readonly tensor: Tensor;
  /** First row. */
  readonly start: number;
  /** One past the last row. */
  readonly end: number;
}

/** What a {@link Tensor} is made from; {@link Gpu.tensor} is the way to get one. */
export interface TensorInit {
  readonly label: string;
  readonly dtype: Dtype;
  readonly shape: readonly number[];
  readonly blocks: readonly RowBlock[];
  readonly rowsPerBlock: number;
  readonly device: GPUDevice;
  /** Called once when the owner disposes of the tensor; absent on windows. */
  readonly release?: () => void;
}

/**
 * A labelled, shaped array in GPU memory, row-major, without strides or views
 * other than row windows. A tensor larger than one binding is a list of row
 * blocks, each in a buffer of its own; kernels take one window at a time.
 */
export class Tensor implements Disposable {
  /** Hugging Face weight name or stream name; also the buffer's label. */
  readonly label: string;
  /** Element type. */
  readonly dtype: Dtype;
  /** Sizes, outermost first. */
  readonly shape: readonly number[];
  /** Rows in every block but the last. */
  readonly rowsPerBlock: number;
  readonly #blocks: readonly RowBlock[];
  readonly #device: GPUDevice;
  readonly #release: (() => void) | undefined;

  /** For {@link Gpu.tensor}, which checks sizes against the device's limits. */
  constructor(init: TensorInit) {
    this.label = init.label;
    this.dtype = init.dtype;
    this.shape = init.shape;
    this.rowsPerBlock = init.rowsPerBlock;
    this.#blocks = init.blocks;
    this.#device = init.device;
    this.#release = init.release;
  }

  /** Size of the outermost dimension. */
  get nRows(): number {
    return this.shape[0] ?? 1;
  }

  /** Bytes of one row. */
  get rowBytes(): number {
    return bytesPerRow(this.dtype, this.shape);
  }

  /** Bytes of the whole tensor. */
  get byteLength(): number {
    return this.nRows * this.rowBytes;
  }

  /** Whether one binding holds the whole tensor. */
  get isBindable(): boolean {
    return this.#blocks.length === 1;
  }

  /**
   * The buffer range to bind.
   * @throws {RangeError} If the tensor spans several blocks: use {@link windows}.
   */
  get binding(): GPUBufferBinding {
    const [block] = this.#blocks;
    if (!block || !this.isBindable) {
      throw new RangeError(
        `Cannot bind ${this}: it spans ${this.#blocks.length} buffers: take its windows()`,
      );
    }
    const size = Math.ceil(this.byteLength / 4) * 4;
    return { buffer: block.buffer, offset: block.offset, size };
  }

  /** The tensor as consecutive row windows, each of which fits into one binding. */
  *windows(): Generator<RowWindow> {
    let start = 0;
    for (const block of this.#blocks) {
      const end = start + block.nRows;
      const whole = block.nRows === this.nRows;
      yield { tensor: whole ? this : this.rows(start, end), start, end };
      start = end;
    }
  }

  /**
   * Rows `[start, end)` as a tensor that shares this one's memory and is not owned.
   * @throws {RangeError} If the rows lie in two blocks, or do not start at a binding's alignment.
   */
  rows(start: number, end: number): Tensor {
    if (start < 0 || end > this.nRows || start >= end) {
      throw new RangeError(
        `Cannot take rows [${start}, ${end}) of ${this}: out of range`,
      );
    }
    const at = Math.floor(start / this.rowsPerBlock);
    const block = this.#blocks[at]!;
    const first = start - at * this.rowsPerBlock;
    const offset = block.offset + first * this.rowBytes;
    if (end - at * this.rowsPerBlock > block.nRows) {
      throw new RangeError(
        `Cannot take rows [${start}, ${end}) of ${this}: they span blocks of ${this.rowsPerBlock} rows`,
      );
    }
    if (offset % BINDING_ALIGNMENT !== 0) {
      throw new RangeError(
        `Cannot take rows [${start}, ${end}) of ${this}: byte ${offset} is not a multiple of ${BINDING_ALIGNMENT}`,
      );
    }
    return new Tensor({
      label: `${this.label}[${start}:${end}]`,
      dtype: this.dtype,
      shape: [end - start, ...this.shape.slice(1)],
      blocks: [{ buffer: block.buffer, offset, nRows: end - start }],
      rowsPerBlock: end - start,
      device: this.#device,
    });
  }

  /**
   * The same memory under another shape with as many elements; not owned.
   * @throws {RangeError} If the counts differ, the tensor spans several buffers, or is quantized.
   */
  reshape(shape: readonly number[]): Tensor {
    const fits = elementCount(shape) === elementCount(this.shape);
    if (!fits || !this.isBindable || isQuantized(this.dtype)) {
      throw new RangeError(
        `Cannot reshape ${this} to [${shape.join(", ")}]`,
      );
    }
    const nRows = shape[0] ?? 1;
    const { buffer, offset } = this.#blocks[0]!;
    return new Tensor({
      label: this.label,
      dtype: this.dtype,
      shape,
      blocks: [{ buffer, offset, nRows }],
      rowsPerBlock: nRows,
      device: this.#device,
    });
  }

  /**
   * The first bytes of the same memory as a tensor of another type and shape; not owned.
   * @throws {RangeError} If there are too few bytes, or the tensor spans several buffers.
   */
  as(label: string, dtype: Dtype, shape: readonly number[]): Tensor {
    const nBytes = bytesOf(dtype, shape);
    if (nBytes > this.byteLength || !this.isBindable) {
      throw new RangeError(
        `Cannot take ${label}: ${describeShape(dtype, shape)} from ${this}`,
      );
    }
    const nRows = shape[0] ?? 1;
    const { buffer, offset } = this.#blocks[0]!;
    return new Tensor({
      label,
      dtype,
      shape,
      blocks: [{ buffer, offset, nRows }],
      rowsPerBlock: nRows,
      device: this.#device,
    });
  }

  /**
   * Queues a copy of host bytes into the tensor, from row `startRow` on.
   * @throws {RangeError} If the bytes are not whole rows, reach past the end, or (16-bit types) split a word.
   */
  write(source: ArrayBufferView<ArrayBuffer>, startRow = 0): void {
    const nRows = source.byteLength / this.rowBytes;
    const last = startRow + nRows === this.nRows;
    if (
      !Number.isInteger(nRows) || !Number.isInteger(startRow) ||
      startRow < 0 || startRow + nRows > this.nRows
    ) {
      throw new RangeError(
        `Cannot write ${source.byteLength} bytes at row ${startRow} of ${this}: rows have ${this.rowBytes} bytes`,
      );
    }
    if (
      startRow * this.rowBytes % 4 !== 0 ||
      (source.byteLength % 4 !== 0 && !last)
    ) {
      throw new RangeError(
        `Cannot write rows [${startRow}, ${
          startRow + nRows
        }) of ${this}: they start or end within a 4-byte word: write an even number of rows at an even row`,
      );
    }
    let bytes = new Uint8Array(
      source.buffer,
      source.byteOffset,
      source.byteLength,
    );
    if (bytes.byteLength % 4 !== 0) {
      const padded = new Uint8Array(Math.ceil(bytes.byteLength / 4) * 4);
      padded.set(bytes);
      bytes = padded;
    }
    let row = startRow;
    for (let done = 0; done < bytes.byteLength;) {
      const at = Math.floor(row / this.rowsPerBlock);
      const block = this.#blocks[Math.min(at, this.#blocks.length - 1)]!;
      const first = row - at * this.rowsPerBlock;
      const room = (block.nRows - first) * this.rowBytes;
      const isLastBlock = at >= this.#blocks.length - 1;
      const size = isLastBlock
        ? bytes.byteLength - done
        : Math.min(room, bytes.byteLength - done);
      const offset = block.offset + first * this.rowBytes;
      this.#device.queue.writeBuffer(block.buffer, offset, bytes, done, size);
      done += size;
      row += size / this.rowBytes;
    }
  }

  /** `resid_post[7]: f32[8, 2048]` */
  toString(): string {
    return `${this.label}: ${describeShape(this.dtype, this.shape)}`;
  }

  /** Frees the memory, if this is the owner; windows and reshaped tensors own nothing. */
  [Symbol.dispose](): void {
    this.#release?.();
  }
}
