/**
 * Passes of a text through a model whose rows stay on the GPU.
 * @module
 */
import type { ReadCorpus } from "../core/text.ts";
import type { TextPosition, TokenContext } from "../core/token_contexts.ts";
import type { Gpu, Tensor } from "../gpu/mod.ts";
import { packedRowNorms } from "../kernels/packed_row_norms.ts";
import { packRows } from "../kernels/pack_rows.ts";
import {
  contextPasses,
  type PassConfig,
  TEXT_START,
} from "./context_passes.ts";
import type { ResidualReader } from "./residual_reader.ts";
import type { RowFilter } from "./row_filter.ts";
import { rowWords } from "./row_ring.ts";

/** Where passes come from. */
export interface ModelPassesOptions extends PassConfig {
  readonly gpu: Gpu;
  /** The model; borrowed, and for nobody else meanwhile. */
  readonly reader: ResidualReader;
  /** What errors call the text. */
  readonly text: string;
  /** Reads the text; called once for each time that it is read. */
  readonly read: ReadCorpus;
}

/** A pass that was submitted: its rows without those of skipped tokens. */
export interface ModelPass {
  /** Its first token. */
  readonly start: TextPosition;
  /** How many times the text was read to its end before it. */
  readonly epoch: number;
  /** Number of rows. */
  readonly n: number;
  /** Rows left out for their token. */
  readonly nSkipped: number;
  /** L2 norms of the rows, f32 `[n]`; -1 where a value is not finite. Rejects with document and position if that is refused. */
  readonly norms: Promise<Float32Array>;
}

/** Contexts of a pass, and which of its tokens are rows. */
interface Plan {
  readonly contexts: readonly TokenContext[];
  readonly rows: Uint32Array<ArrayBuffer>;
  readonly nSkipped: number;
}

/** Endless passes: a text that ends starts over. One pass at a time is held. */
export class ModelPasses implements Disposable {
  /** Rows of the last pass, bf16 in whole words: u32 `[maxTokens, words]`. */
  readonly packed: Tensor;
  readonly #options: ModelPassesOptions;
  readonly #filter: RowFilter;
  readonly #rows: Tensor; // u32 [maxTokens]
  readonly #norms: Tensor; // f32 [maxTokens]
  readonly #owned = new DisposableStack();
  #passes: AsyncGenerator<TokenContext[]> | undefined;
  #epoch = 0;
  #start = TEXT_START;
  /** Where the text begins every time that it is read. */
  #first = TEXT_START;

  /** Starts at the first token. */
  constructor(options: ModelPassesOptions, filter: RowFilter) {
    const { gpu, reader: { maxTokens, model } } = options;
    this.#options = options;
    this.#filter = filter;
    const tensor = (
      label: string,
      dtype: "u32" | "f32",
      shape: number[],
    ): Tensor => this.#owned.use(gpu.tensor(label, dtype, shape));
    const words = rowWords(model.config.d_model);
    this.packed = tensor("rows of a pass", "u32", [maxTokens, words]);
    this.#rows = tensor("which rows", "u32", [maxTokens]);
    this.#norms = tensor("norms of a pass", "f32", [maxTokens]);
  }

  /** Where the text begins every time that it is read. */
  get first(): TextPosition {
    return this.#first;
  }

  /** Leaves tokens before this one out whenever the text starts over. */
  set first(start: TextPosition) {
    this.#first = start;
  }

  /** Goes on at the start of a pass, as if the text were read for the first time. */
  async seek(start: TextPosition): Promise<void> {
    await this.#passes?.return(undefined);
    this.#passes = undefined;
    this.#start = start;
  }

  /**
   * Submits the next pass that has rows; they lie in {@link packed} until the one after it.
   * @throws {RangeError} If the text has no such pass.
   */
  async next(): Promise<ModelPass> {
    const { reader } = this.#options;
    const { contexts, rows, nSkipped } = await this.#plan();
    const n = rows.length;
    this.#rows.write(rows);
    reader.submit(contexts.map(({ ids }) => ids), (rec, x) => {
      const packed = this.packed.rows(0, n);
      packRows.run(rec, { x, rows: this.#rows.rows(0, n), packed });
      packedRowNorms.run(rec, { packed, norms: this.#norms.rows(0, n) });
    });
    const norms = this.#checked(contexts, rows, n);
    // A failure is thrown where they are awaited.
    norms.catch(() => {});
    return {
      start: contexts[0]!.start,
      epoch: this.#epoch,
      n,
      nSkipped,
      norms,
    };
  }

  async #checked(
    contexts: readonly TokenContext[],
    rows: Uint32Array,
    n: number,
  ): Promise<Float32Array> {
    const { gpu, reader: { hookPoint }, text } = this.#options;
    const norms = await gpu.read(this.#norms.rows(0, n));
    const bad = norms.indexOf(-1);
    if (bad < 0 || this.#filter.skipBadRows) return norms;
    throw new RangeError(
      `Cannot train on "${text}": expected finite values of ${hookPoint}: got NaN or infinity in ${
        placeOf(contexts, rows[bad]!)
      }: check the model, or leave bad vectors out`,
    );
  }

  /** Frees the memory. */
  [Symbol.dispose](): void {
    this.#owned.dispose();
  }

  async #plan(): Promise<Plan> {
    const { read, reader: { model }, text } = this.#options;
    for (let nEnds = 0; nEnds < 2;) {
      this.#passes ??= contextPasses(read, model, this.#options, this.#start);
      const { value } = await this.#passes.next() as {
        value: TokenContext[] | undefined;
      };
      if (!value) {
        nEnds++;
        this.#epoch++;
        this.#start = this.#first;
        this.#passes = undefined;
        continue;
      }
      const plan = this.#rowsOf(value);
      if (plan.rows.length > 0) return plan;
    }
    throw new RangeError(
      `Cannot train on "${text}": expected documents of more than ${this.#options.skipFirst} tokens from document ${this.#first.document} on: got none with a token that is not left out`,
    );
  }

  #rowsOf(contexts: readonly TokenContext[]): Plan {
    const rows: number[] = [];
    let start = 0;
    let nSkipped = 0;
    for (const { ids, kept } of contexts) {
      for (const [i, id] of ids.entries()) {
        if (kept[i] === 0) continue;
        if (this.#filter.skipsToken(id)) nSkipped++;
        else rows.push(start + i);
      }
      start += ids.length;
    }
    return { contexts, rows: Uint32Array.from(rows), nSkipped };
  }
}

function placeOf(contexts: readonly TokenContext[], row: number): string {
  let position = row;
  for (const { ids, documents } of contexts) {
    if (position < ids.length) {
      return `document ${
        documents[position]
      }, position ${position} of its context`;
    }
    position -= ids.length;
  }
  throw new RangeError(`Cannot find row ${row} of a pass`);
}
