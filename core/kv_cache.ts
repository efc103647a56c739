import type { Gpu, Tensor } from "../gpu/mod.ts";
import type { Olmo2Config } from "./olmo2_config.ts";

/** Positions of a row that lie side by side in a {@link KvCache}. */
export const PAGE_TOKENS = 16;

/** How large a {@link KvCache} may grow. */
export interface KvCacheOptions {
  /** Sequences that it holds at once; {@link KvCache.fit} makes room for more. */
  readonly nRows: number;
  /** Blocks that the cache serves. */
  readonly nLayers: number;
  /**
   * Whether the blocks use the same memory one after the other: enough for a pass
   * over whole sequences, after which nothing is generated.
   */
  readonly isShared: boolean;
  /** Most tokens over all rows, rounded up to pages; as many as one binding holds of a block's keys when absent. */
  readonly maxTokens?: number;
}

/**
 * Keys and values of past tokens, turned and normed, f32, in pages of
 * {@link PAGE_TOKENS} positions. A sequence is a row, and has the pages that were
 * reserved for it, wherever they lie; memory grows when all pages are taken.
 * Reserve between recordings, and take {@link keys} and {@link values} anew for each.
 */
export class KvCache implements Disposable {
  /** Most tokens that all rows together may hold, in whole pages. */
  readonly maxTokens: number;
  readonly #gpu: Gpu;
  readonly #config: Olmo2Config;
  readonly #pagesPerRow: number;
  readonly #K: Tensor[] = []; // per layer, f32 [nPages * PAGE_TOKENS, n_kv_heads * d_head]
  readonly #V: Tensor[] = [];
  readonly #rows: number[][]; // pages of each row, in the order of their positions
  #table: Tensor; // u32 [nRows, pagesPerRow]
  #free: number[] = []; // falling, so that the lowest is taken first
  #nPages = 1;

  /**
   * Takes memory for one page a block.
   * @throws {RangeError} If one page of keys exceeds the adapter's binding limit.
   */
  constructor(gpu: Gpu, config: Olmo2Config, options: KvCacheOptions) {
    const { nRows, nLayers, isShared, maxTokens = Infinity } = options;
    const binding = gpu.limits.maxStorageBufferBindingSize;
    const pageBytes = 4 * PAGE_TOKENS * config.n_kv_heads * config.d_head;
    const most = Math.floor(binding / pageBytes);
    if (most < 1) {
      throw new RangeError(
        `Cannot cache ${PAGE_TOKENS} tokens: their keys of ${pageBytes} bytes exceed the adapter's binding limit of ${binding} bytes: use a GPU with larger bindings`,
      );
    }
    this.maxTokens = PAGE_TOKENS *
      Math.min(most, Math.ceil(maxTokens / PAGE_TOKENS));
    this.#gpu = gpu;
    this.#config = config;
    this.#pagesPerRow = Math.ceil(config.context_length / PAGE_TOKENS);
    this.#rows = Array.from({ length: nRows }, () => []);
    this.#free = [0];
    this.#table = this.#newTable();
    for (let l = 0; l < (isShared ? 1 : nLayers); l++) {
      this.#K.push(this.#newPages(`cache.K.${l}`));
      this.#V.push(this.#newPages(`cache.V.${l}`));
    }
  }

  /** Page of each run of {@link PAGE_TOKENS} positions, u32 `[nRows, ceil(context_length / PAGE_TOKENS)]`; 0 where none is reserved. */
  get table(): Tensor {
    return this.#table;
  }

  /** Keys of block `layer`, f32 `[nPages · PAGE_TOKENS, n_kv_heads · d_head]`; another tensor once the cache has grown. */
  keys(layer: number): Tensor {
    return this.#K[Math.min(layer, this.#K.length - 1)]!;
  }

  /** Values of block `layer`, f32 `[nPages · PAGE_TOKENS, n_kv_heads · d_head]`; another tensor once the cache has grown. */
  values(layer: number): Tensor {
    return this.#V[Math.min(layer, this.#V.length - 1)]!;
  }

  /** Pages on the GPU. */
  get nPages(): number {
    return this.#nPages;
  }

  /** Pages on the GPU that no row has. */
  get nPagesFree(): number {
    return this.#free.length;
  }

  /** Tokens that the rows can hold now, in whole pages. */
  get nTokensHeld(): number {
    return PAGE_TOKENS * (this.#nPages - this.#free.length);
  }

  /**
   * Gives a row pages for `nTokens` tokens in all; what it holds stays.
   * @returns Whether there was room; nothing has changed if not.
   * @throws {RangeError} If the model's context is shorter, or there is no such row.
   */
  reserve(row: number, nTokens: number): boolean {
    const pages = this.#rows[row];
    if (!pages) {
      throw new RangeError(
        `Cannot reserve row ${row} of a cache: expected a row from 0 to ${
          this.#rows.length - 1
        }: make the cache with more rows`,
      );
    }
    const nMore = this.#nPagesFor(nTokens) - pages.length;
    if (nMore <= 0) return true;
    if (!this.#makeFree(nMore)) return false;
    for (let i = 0; i < nMore; i++) pages.push(this.#free.pop()!);
    this.#table.write(this.#tableRows([pages]), row);
    return true;
  }

  /** Takes a row's pages back for others. */
  release(row: number): void {
    this.#free.push(...this.#rows[row]?.splice(0) ?? []);
    this.#free.sort((a, b) => b - a);
  }

  /** Takes all pages back. */
  releaseAll(): void {
    for (const pages of this.#rows) pages.length = 0;
    this.#free = Array.from(
      { length: this.#nPages },
      (_, i) => this.#nPages - 1 - i,
    );
  }

  /**
   * Makes rows 0, 1, … of whole sequences, for a pass of their own, instead of what there was.
   * @param lengths Tokens of each.
   * @throws {RangeError} If they do not fit; all pages are free then.
   */
  fit(lengths: readonly number[]): void {
    this.releaseAll();
    const counts = lengths.map((length) => this.#nPagesFor(length));
    const nPages = counts.reduce((sum, n) => sum + n, 0);
    if (!this.#makeFree(nPages)) {
      throw new RangeError(
        `Cannot cache ${lengths.length} sequences of ${
          nPages * PAGE_TOKENS
        } tokens in whole pages: at most ${this.maxTokens} fit: use fewer sequences or a shorter context`,
      );
    }
    if (lengths.length > this.#rows.length) {
      while (this.#rows.length < lengths.length) this.#rows.push([]);
      this.#table[Symbol.dispose]();
      this.#table = this.#newTable();
    }
    for (const [row, n] of counts.entries()) {
      for (let i = 0; i < n; i++) this.#rows[row]!.push(this.#free.pop()!);
    }
    this.#table.write(this.#tableRows(this.#rows.slice(0, lengths.length)));
  }

  #nPagesFor(nTokens: number): number {
    const { context_length } = this.#config;
    if (nTokens > context_length) {
      throw new RangeError(
        `Cannot cache a sequence of ${nTokens} tokens: the model's context is ${context_length}: shorten it`,
      );
    }
    return Math.ceil(nTokens / PAGE_TOKENS);
  }

  /** Grows until `nPages` are free, if they may be. */
  #makeFree(nPages: number): boolean {
    const needed = this.#nPages - this.#free.length + nPages;
    const most = this.maxTokens / PAGE_TOKENS;
    if (needed > most) return false;
    if (needed <= this.#nPages) return true;
    const isEmpty = this.#free.length === this.#nPages;
    const before = this.#nPages;
    // Half as much again, so that rows that grow by turns copy little; what is whole needs no more.
    const roomy = isEmpty ? needed : Math.ceil(1.5 * before);
    this.#nPages = Math.min(most, Math.max(needed, roomy));
    for (const tensors of [this.#K, this.#V]) {
      for (const [l, old] of tensors.entries()) {
        if (isEmpty) old[Symbol.dispose]();
        const grown = this.#newPages(old.label);
        tensors[l] = grown;
        if (isEmpty) continue;
        this.#gpu.record("grow cache", (rec) => rec.copy(old, grown));
        old[Symbol.dispose]();
      }
    }
    for (let page = before; page < this.#nPages; page++) this.#free.push(page);
    this.#free.sort((a, b) => b - a);
    return true;
  }

  #newPages(label: string): Tensor {
    const { n_kv_heads, d_head } = this.#config;
    const shape = [this.#nPages * PAGE_TOKENS, n_kv_heads * d_head];
    return this.#gpu.tensor(label, "f32", shape);
  }

  #newTable(): Tensor {
    const shape = [this.#rows.length, this.#pagesPerRow];
    return this.#gpu.tensor("cache.pages", "u32", shape);
  }

  #tableRows(rows: readonly (readonly number[])[]): Uint32Array<ArrayBuffer> {
    const words = new Uint32Array(rows.length * this.#pagesPerRow);
    for (const [i, pages] of rows.entries()) {
      words.set(pages, i * this.#pagesPerRow);
    }
    return words;
  }

  /** Frees the memory. */
  [Symbol.dispose](): void {
    for (const tensor of [this.#table, ...this.#K, ...this.#V]) {
      tensor[Symbol.dispose]();
    }
  }
}
