/**
 * GPU memory that grows with what is steered.
 * @module
 */
import type { SaeFile } from "../core/sae_file.ts";
import type { Gpu, Tensor } from "../gpu/mod.ts";

/** Rows that there is room for at first. */
const FIRST_CAPACITY = 8;

/** One row that is in use. */
interface HeldRow {
  readonly sae: SaeFile;
  readonly feature: number;
  nHolders: number;
}

/**
 * Encoder and decoder rows of features on the GPU, each of them once, and as long as somebody
 * holds it. A row keeps its place while it is held; there is always room for more, up to a binding.
 */
export class SteeringRows implements Disposable {
  readonly #gpu: Gpu;
  readonly #d_model: number;
  readonly #held = new Map<number, HeldRow>();
  readonly #rowOf = new Map<SaeFile, Map<number, number>>();
  readonly #free: number[] = [];
  #nRows = 0; // rows that have been in use
  #W_enc: Tensor; // f32 [capacity, d_model]
  #W_dec: Tensor; // f32 [capacity, d_model]
  #isDisposed = false;

  /** Takes memory for a few rows. */
  constructor(gpu: Gpu, d_model: number) {
    this.#gpu = gpu;
    this.#d_model = d_model;
    this.#W_enc = this.#tensor("steered.W_enc", FIRST_CAPACITY);
    this.#W_dec = this.#tensor("steered.W_dec", FIRST_CAPACITY);
  }

  /** f32 `[capacity, d_model]`; another tensor once there are more rows. */
  get W_enc(): Tensor {
    return this.#W_enc;
  }

  /** f32 `[capacity, d_model]`; another tensor once there are more rows. */
  get W_dec(): Tensor {
    return this.#W_dec;
  }

  /**
   * The place of a feature's rows, which are read if nobody holds them yet; give it back with {@link release}.
   * @throws {RangeError} If the file is damaged there, or a binding has no room for another row.
   */
  async hold(sae: SaeFile, feature: number): Promise<number> {
    if (this.#find(sae, feature) === undefined) {
      const W_enc = await sae.rowsOfEncoder(feature, feature + 1);
      const W_dec = await sae.rowsOfDecoder(feature, feature + 1);
      if (this.#isDisposed) {
        throw new Error("Cannot steer: the bank was disposed of meanwhile");
      }
      this.#put(sae, feature, W_enc, W_dec);
    }
    const row = this.#find(sae, feature)!;
    this.#held.get(row)!.nHolders++;
    return row;
  }

  /** Gives a row back; the last holder frees its place. */
  release(row: number): void {
    const held = this.#held.get(row)!;
    if (--held.nHolders > 0) return;
    this.#held.delete(row);
    this.#rowOf.get(held.sae)!.delete(held.feature);
    this.#free.push(row);
  }

  #find(sae: SaeFile, feature: number): number | undefined {
    return this.#rowOf.get(sae)?.get(feature);
  }

  #put(
    sae: SaeFile,
    feature: number,
    W_enc: Float32Array<ArrayBuffer>,
    W_dec: Float32Array<ArrayBuffer>,
  ): void {
    if (this.#free.length === 0 && this.#nRows === this.#W_enc.nRows) {
      this.#grow();
    }
    const row = this.#free.pop() ?? this.#nRows++;
    this.#W_enc.write(W_enc, row);
    this.#W_dec.write(W_dec, row);
    this.#held.set(row, { sae, feature, nHolders: 0 });
    const rows = this.#rowOf.get(sae) ?? new Map<number, number>();
    this.#rowOf.set(sae, rows.set(feature, row));
  }

  /** Doubles the memory; what is there is copied on the GPU. */
  #grow(): void {
    const most = Math.floor(
      this.#gpu.limits.maxStorageBufferBindingSize / (4 * this.#d_model),
    );
    const before = { W_enc: this.#W_enc, W_dec: this.#W_dec };
    const capacity = Math.min(2 * before.W_enc.nRows, most);
    if (capacity <= before.W_enc.nRows) {
      throw new RangeError(
        `Cannot steer ${
          this.#nRows + 1
        } features in all sets together: expected at most ${most}, as their rows must fit into the adapter's binding limit`,
      );
    }
    using made = new DisposableStack();
    const W_enc = made.use(this.#tensor("steered.W_enc", capacity));
    const W_dec = made.use(this.#tensor("steered.W_dec", capacity));
    this.#gpu.record("more steered rows", (rec) => {
      rec.copy(before.W_enc, W_enc);
      rec.copy(before.W_dec, W_dec);
    });
    made.move();
    this.#W_enc = W_enc;
    this.#W_dec = W_dec;
    for (const tensor of Object.values(before)) tensor[Symbol.dispose]();
  }

  #tensor(label: string, nRows: number): Tensor {
    return this.#gpu.tensor(label, "f32", [nRows, this.#d_model]);
  }

  /** Frees the memory. */
  [Symbol.dispose](): void {
    this.#isDisposed = true;
    this.#W_enc[Symbol.dispose]();
    this.#W_dec[Symbol.dispose]();
  }
}

/** A u32 tensor of as many rows as the last load had; its memory grows. */
export class GrowingWords implements Disposable {
  readonly #gpu: Gpu;
  readonly #label: string;
  readonly #width: number;
  #memory: Tensor | undefined;
  #loaded: Tensor | undefined;

  /** Takes no memory yet; rows have `width` words. */
  constructor(gpu: Gpu, label: string, width: number) {
    this.#gpu = gpu;
    this.#label = label;
    this.#width = width;
  }

  /** What was loaded last. */
  get loaded(): Tensor {
    return this.#loaded!;
  }

  /** Queues a copy of words. */
  load(words: Uint32Array<ArrayBuffer>): Tensor {
    const nRows = words.length / this.#width;
    if (!this.#memory || this.#memory.nRows < nRows) {
      const room = Math.max(nRows, 2 * (this.#memory?.nRows ?? 0));
      this.#memory?.[Symbol.dispose]();
      this.#memory = this.#gpu.tensor(this.#label, "u32", [room, this.#width]);
    }
    this.#loaded = this.#memory.rows(0, nRows);
    this.#loaded.write(words);
    return this.#loaded;
  }

  /** Frees the memory. */
  [Symbol.dispose](): void {
    this.#memory?.[Symbol.dispose]();
  }
}
